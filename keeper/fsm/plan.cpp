#include "keeper/fsm/plan.hpp"

namespace pgvigil::keeper {

std::string_view to_string(Step step) {
  switch (step) {
    case Step::create_cluster: return "create_cluster";
    case Step::configure_primary: return "configure_primary";
    case Step::keep_running: return "keep_running";
    case Step::start: return "start";
    case Step::create_roles: return "create_roles";
    case Step::checkpoint: return "checkpoint";
    case Step::stop: return "stop";
    case Step::prepare_standby: return "prepare_standby";
    case Step::configure_standby: return "configure_standby";
    case Step::cut_off: return "cut_off";
    case Step::fetch: return "fetch";
    case Step::release: return "release";
    case Step::arm: return "arm";
    case Step::promote: return "promote";
    case Step::secure_timeline: return "secure_timeline";
  }
  return "?";
}

namespace {

bool has_no_data(NodeState state) {
  return state == NodeState::init || state == NodeState::wait_standby;
}

std::optional<Plan> to_writer(NodeState reported) {
  if (reported == NodeState::init || reported == NodeState::dropped) {
    return Plan{Step::create_cluster, Step::configure_primary, Step::start, Step::create_roles};
  }
  if (takes_writes(reported)) return Plan{Step::configure_primary, Step::start, Step::create_roles};
  // Given back to a former primary after a hand-over that failed: nobody was promoted meanwhile.
  // The promotion does nothing unless an interrupted plan has left a standby.signal behind.
  if (being_demoted(reported))
    return Plan{Step::configure_primary, Step::start, Step::arm, Step::promote, Step::create_roles};
  // The names are in the settings before the promotion, so that its first commit waits for them.
  if (runs_as_standby(reported)) {
    return Plan{Step::start,   Step::configure_primary, Step::arm,
                Step::promote, Step::create_roles,      Step::secure_timeline};
  }
  return std::nullopt;
}

std::optional<Plan> to_standby(NodeState reported) {
  if (runs_as_standby(reported))
    return Plan{Step::keep_running, Step::prepare_standby, Step::configure_standby, Step::start};
  if (takes_writes(reported)) return Plan{Step::stop, Step::prepare_standby, Step::configure_standby, Step::start};
  return Plan{Step::prepare_standby, Step::configure_standby, Step::start};
}

std::optional<Plan> to_vote(NodeState reported) {
  if (has_no_data(reported)) return std::nullopt;
  if (takes_writes(reported)) return Plan{Step::stop, Step::cut_off, Step::start};
  return Plan{Step::cut_off, Step::start};
}

}  // namespace

std::optional<Plan> plan(NodeState reported, NodeState goal) {
  switch (goal) {
    case NodeState::init: return std::nullopt;
    case NodeState::single:
    case NodeState::wait_primary:
    case NodeState::primary:
    case NodeState::apply_settings: return to_writer(reported);
    case NodeState::draining:
    case NodeState::prepare_maintenance:
      if (takes_writes(reported)) return Plan{Step::checkpoint, Step::stop};
      return being_demoted(reported) ? std::optional(Plan{Step::stop}) : std::nullopt;
    case NodeState::demote_timeout:
    case NodeState::demoted:
    case NodeState::dropped: return Plan{Step::stop};
    case NodeState::wait_standby:
      return has_no_data(reported) || reported == NodeState::dropped ? std::optional(Plan{}) : std::nullopt;
    case NodeState::catchingup:
    case NodeState::join_secondary: return to_standby(reported);
    case NodeState::fast_forward:
      if (!runs_as_standby(reported)) return std::nullopt;
      return Plan{Step::keep_running, Step::prepare_standby, Step::configure_standby, Step::start, Step::fetch};
    case NodeState::secondary:
    case NodeState::prepare_promotion:
    case NodeState::wait_maintenance:
      return runs_as_standby(reported) ? std::optional(Plan{Step::configure_standby, Step::start}) : std::nullopt;
    case NodeState::report_lsn:
    case NodeState::stop_replication: return to_vote(reported);
    case NodeState::maintenance:
      if (reported == NodeState::maintenance) return Plan{};  // the operator's: nothing is touched
      if (being_demoted(reported)) return Plan{Step::stop, Step::release};
      return runs_as_standby(reported) ? std::optional(Plan{Step::release}) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace pgvigil::keeper
