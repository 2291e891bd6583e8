// Rules 301-309: the primary is lost, or hands over.
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

constexpr Millis crash_is_sure{2000};
constexpr int long_replay = 10;  // times the drain timeout

Nodes others_that_may_vote(const GroupSnapshot& group, const NodeView& former) {
  Nodes able = possible_voters(group);
  std::erase(able, &former);
  return able;
}

bool somebody_eligible(const Nodes& able) {
  return std::any_of(able.begin(), able.end(), [](const NodeView* node) { return node->candidate_priority > 0; });
}

std::optional<Decision> primary_lost(const GroupSnapshot& group) {
  const NodeView* primary = writer(group);
  if (primary == nullptr) return std::nullopt;
  auto why = dead(group, *primary);
  if (!why) why = out_of_space(group, *primary);
  if (!why) why = never_came(group, *primary);
  if (!why) return std::nullopt;
  const Nodes able = others_that_may_vote(group, *primary);
  if (!somebody_eligible(able)) return std::nullopt;
  if (!all_fences_hold(group, able) && !forced(group)) return std::nullopt;
  return start_election(group, *primary,
                        primary->name + " is lost: " + *why + "; asking " + list_names(able) + " for their WAL");
}

std::optional<Decision> clean_handover(const GroupSnapshot& group) {
  const NodeView* former = leaving_primary(group);
  const NodeView* candidate = with_goal(group, NodeState::prepare_promotion);
  if (former == nullptr || candidate == nullptr || !candidate->converged()) return std::nullopt;
  const bool has_it_all =
      surely_stopped(*former) && former->lsn.value > 0 && contains(candidate->position(), former->position());
  if (!has_it_all || !healthy(group, *candidate)) return std::nullopt;
  Nodes survivors;
  for (const NodeView& node : group.nodes) {
    if (node.goal == NodeState::secondary) survivors.push_back(&node);
  }
  Decision decision = promote(
      group, *candidate, survivors,
      candidate->name + " takes over from " + former->name + ", with all of its WAL up to " + to_string(former->lsn));
  decision.term = next(group.term);
  const bool to_maintenance = former->goal == NodeState::prepare_maintenance;
  to(decision, *former, to_maintenance ? NodeState::maintenance : NodeState::demoted);
  return decision;
}

std::optional<Decision> handover_failed(const GroupSnapshot& group) {
  const NodeView* former = leaving_primary(group);
  if (former == nullptr || writer(group) != nullptr) return std::nullopt;
  const NodeView* candidate = with_goal(group, NodeState::prepare_promotion);
  const bool candidate_gone = candidate == nullptr || gone(group, *candidate) || dead(group, *candidate).has_value();
  // While its keeper is there, a stopped PostgreSQL is what was asked for.
  const bool former_gone = !former->converged() && !former->session_open && dead(group, *former).has_value();
  const bool too_long = former->goal_age >= group.timing.drain_timeout;
  // A server that has stopped sends nothing any more: the candidate was not streaming when the last records were sent.
  const bool incomplete = surely_stopped(*former) && former->lsn.value > 0 && candidate != nullptr &&
                          candidate->converged() && !candidate->streaming &&
                          !contains(candidate->position(), former->position());
  // It has crashed, and cannot say where its WAL ends. (A keeper that has just been started does not know it yet.)
  const bool crashed = surely_stopped(*former) && former->lsn.value == 0 && candidate != nullptr &&
                       candidate->not_streaming_for >= crash_is_sure;
  if (former_gone || crashed) {
    const Nodes able = others_that_may_vote(group, *former);
    if (somebody_eligible(able) && all_fences_hold(group, able)) {
      return start_election(group, *former,
                            former->name + (crashed ? " has crashed" : " was lost") + " while it handed over; asking " +
                                list_names(able));
    }
  }
  if (!candidate_gone && !incomplete && !crashed && !too_long) return std::nullopt;
  // It is still ours to give back: nobody has been promoted, and the names that it had in force are still the last
  // ones. When it is lost itself, that is rule 301's affair from here on.
  Decision decision = change("the hand-over is given up (" +
                             std::string(candidate_gone ? "the candidate is lost"
                                         : incomplete   ? "the candidate has not got all of its WAL"
                                         : crashed      ? "it has crashed"
                                                        : "it took too long") +
                             "): " + former->name + " goes on as the primary");
  to(decision, *former, NodeState::wait_primary);
  if (candidate != nullptr) to(decision, *candidate, NodeState::catchingup);
  return decision;
}

// It cannot become the primary (its disk is full, say), and says so. It is stopped first and tells where its WAL ends,
// so that nobody needs its vote.
std::optional<Decision> promotion_failed(const GroupSnapshot& group) {
  const NodeView* candidate = writer(group);
  if (candidate == nullptr || candidate->converged() || takes_writes(candidate->reported)) return std::nullopt;
  if (!fresh(group, *candidate) || candidate->goal_age < group.timing.drain_timeout) return std::nullopt;
  const Nodes able = others_that_may_vote(group, *candidate);
  if (!somebody_eligible(able) || candidate->reported == NodeState::init) return std::nullopt;
  // It may have much to replay, and would begin that anew: when nobody can take over without it, it is given longer.
  const bool needed = healthy(group, *candidate) && !all_fences_hold(group, able);
  if (needed && candidate->goal_age < long_replay * group.timing.drain_timeout) return std::nullopt;
  return start_election(group, *candidate,
                        candidate->name + " has not become the primary in time; asking " + list_names(able));
}

constexpr Rule table[] = {
    {{301, "primary_lost",
      "the primary is dead (or its disk is full, or hangs, and another node has a better one; or it was chosen, and "
      "has stopped or fallen silent since), and enough of its standbys are healthy to fence it off",
      "term + 1; every standby that can vote: report_lsn; the primary: demote_timeout"},
     primary_lost},
    {{303, "clean_handover",
      "the draining (or prepare_maintenance) primary has stopped, and the candidate has all of its WAL",
      "term + 1; candidate: wait_primary; former primary: demoted (or maintenance)"},
     clean_handover},
    {{305, "handover_failed",
      "during a hand-over the candidate or the former primary is lost, the former primary has stopped before the "
      "candidate had all of its WAL, or it takes too long",
      "the former primary goes on (wait_primary), or an election (report_lsn) without it"},
     handover_failed},
    {{307, "promotion_failed", "the chosen node has not become the primary in time, and another one can vote",
      "term + 1; every standby that can vote: report_lsn; the chosen node: demote_timeout"},
     promotion_failed},
};

}  // namespace

std::span<const Rule> failover_rules() {
  return table;
}

}  // namespace pgvigil::fsm
