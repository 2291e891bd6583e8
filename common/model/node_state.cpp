#include "common/model/node_state.hpp"

namespace pgvigil {

std::string_view to_string(NodeState state) {
  switch (state) {
    case NodeState::init: return "init";
    case NodeState::single: return "single";
    case NodeState::wait_primary: return "wait_primary";
    case NodeState::primary: return "primary";
    case NodeState::draining: return "draining";
    case NodeState::demote_timeout: return "demote_timeout";
    case NodeState::demoted: return "demoted";
    case NodeState::wait_standby: return "wait_standby";
    case NodeState::catchingup: return "catchingup";
    case NodeState::secondary: return "secondary";
    case NodeState::prepare_promotion: return "prepare_promotion";
    case NodeState::stop_replication: return "stop_replication";
    case NodeState::report_lsn: return "report_lsn";
    case NodeState::fast_forward: return "fast_forward";
    case NodeState::join_secondary: return "join_secondary";
    case NodeState::apply_settings: return "apply_settings";
    case NodeState::prepare_maintenance: return "prepare_maintenance";
    case NodeState::wait_maintenance: return "wait_maintenance";
    case NodeState::maintenance: return "maintenance";
    case NodeState::dropped: return "dropped";
  }
  return "?";
}

std::optional<NodeState> parse_node_state(std::string_view text) {
  for (const NodeState state : all_node_states) {
    if (to_string(state) == text) return state;
  }
  return std::nullopt;
}

bool takes_writes(NodeState state) {
  return state == NodeState::single || state == NodeState::wait_primary || state == NodeState::primary ||
         state == NodeState::apply_settings;
}

bool being_demoted(NodeState state) {
  return state == NodeState::draining || state == NodeState::demote_timeout || state == NodeState::demoted ||
         state == NodeState::prepare_maintenance;
}

bool ends_lease(NodeState goal) {
  return goal == NodeState::demote_timeout || goal == NodeState::demoted || goal == NodeState::dropped;
}

bool runs_as_standby(NodeState state) {
  switch (state) {
    case NodeState::catchingup:
    case NodeState::secondary:
    case NodeState::prepare_promotion:
    case NodeState::stop_replication:
    case NodeState::report_lsn:
    case NodeState::fast_forward:
    case NodeState::join_secondary:
    case NodeState::wait_maintenance: return true;
    default: return false;
  }
}

}  // namespace pgvigil
