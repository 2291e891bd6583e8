// Rules 301-399: the primary is lost, hands over, or is replaced by election.
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

Term next(Term term) {
  return Term{term.value + 1};
}

bool forced(const GroupSnapshot& group) {
  return group.request && group.request->allow_data_loss && group.request->kind == RequestKind::failover;
}

Nodes able_voters(const GroupSnapshot& group) {
  Nodes able;
  for (const NodeView& node : group.nodes) {
    if (can_vote(group, node)) able.push_back(&node);
  }
  return able;
}

const NodeView* with_goal(const GroupSnapshot& group, NodeState goal) {
  const auto found =
      std::find_if(group.nodes.begin(), group.nodes.end(), [goal](const NodeView& node) { return node.goal == goal; });
  return found == group.nodes.end() ? nullptr : &*found;
}

// The node that is giving the primary role away in a planned hand-over (also by leaving the formation).
const NodeView* leaving_primary(const GroupSnapshot& group) {
  if (const NodeView* node = with_goal(group, NodeState::draining)) return node;
  return nullptr;
}

// Fan-out of an election: everyone who can vote does, whoever had the role before is stopped.
Decision start_election(const GroupSnapshot& group, const NodeView& former, std::string why) {
  Decision decision = change(std::move(why));
  decision.term = next(group.term);
  for (const NodeView* node : able_voters(group)) {
    if (node->id != former.id) to(decision, *node, NodeState::report_lsn);
  }
  if (former.goal != NodeState::dropped) to(decision, former, NodeState::demote_timeout);
  return decision;
}

Decision promote(const GroupSnapshot& group, const NodeView& candidate, const Nodes& survivors, std::string why) {
  Decision decision = change(std::move(why));
  to(decision, candidate, NodeState::wait_primary);
  decision.names_goal = NamesInForce{names_for_promotion(group, candidate, survivors), candidate.id};
  return decision;
}

std::optional<Decision> primary_lost(const GroupSnapshot& group) {
  const NodeView* primary = writer(group);
  if (primary == nullptr) return std::nullopt;
  const auto why = dead(group, *primary);
  if (!why) return std::nullopt;
  Nodes able = able_voters(group);
  std::erase(able, primary);
  const bool eligible =
      std::any_of(able.begin(), able.end(), [](const NodeView* node) { return node->candidate_priority > 0; });
  if (!eligible) return std::nullopt;
  if (!fence_possible(group, able) && !forced(group)) return std::nullopt;
  return start_election(group, *primary,
                        primary->name + " is lost: " + *why + "; asking " + list_names(able) + " for their WAL");
}

std::optional<Decision> clean_handover(const GroupSnapshot& group) {
  const NodeView* former = leaving_primary(group);
  const NodeView* candidate = with_goal(group, NodeState::prepare_promotion);
  if (former == nullptr || candidate == nullptr || !candidate->converged()) return std::nullopt;
  const bool has_it_all = surely_stopped(*former) && former->lsn.value > 0 && candidate->timeline == former->timeline &&
                          candidate->lsn >= former->lsn;
  if (!has_it_all) return std::nullopt;
  Nodes survivors;
  for (const NodeView& node : group.nodes) {
    if (node.goal == NodeState::secondary) survivors.push_back(&node);
  }
  Decision decision = promote(
      group, *candidate, survivors,
      candidate->name + " takes over from " + former->name + ", with all of its WAL up to " + to_string(former->lsn));
  decision.term = next(group.term);
  to(decision, *former, NodeState::demoted);
  return decision;
}

std::optional<Decision> handover_failed(const GroupSnapshot& group) {
  const NodeView* former = leaving_primary(group);
  if (former == nullptr || writer(group) != nullptr) return std::nullopt;
  const NodeView* candidate = with_goal(group, NodeState::prepare_promotion);
  const bool candidate_gone = candidate == nullptr || !fresh(group, *candidate) || dead(group, *candidate).has_value();
  // While its keeper is there, a stopped PostgreSQL is what was asked for.
  const bool former_gone = !former->converged() && !former->session_open && dead(group, *former).has_value();
  const bool too_long = former->goal_age >= group.timing.drain_timeout;
  if (former_gone) {
    Nodes able = able_voters(group);
    std::erase(able, former);
    if (!fence_possible(group, able)) return std::nullopt;
    return start_election(group, *former, former->name + " was lost while it handed over; asking " + list_names(able));
  }
  if (!(candidate_gone || too_long) || !fresh(group, *former)) return std::nullopt;
  // It is still ours to give back: nobody has been promoted, and the names that it had in force are still the last
  // ones.
  Decision decision = change("the hand-over is given up (" +
                             std::string(candidate_gone ? "the candidate is lost" : "it took too long") +
                             "): " + former->name + " goes on as the primary");
  to(decision, *former, NodeState::wait_primary);
  if (candidate != nullptr) to(decision, *candidate, NodeState::catchingup);
  return decision;
}

std::optional<Decision> elect(const GroupSnapshot& group) {
  if (writer(group) != nullptr) return std::nullopt;
  const Nodes votes = voters(group);
  if (votes.empty() || !all_fences_hold(group, votes)) return std::nullopt;
  const NodeView* candidate = elected(votes);
  if (candidate == nullptr) return std::nullopt;
  Nodes survivors = votes;
  std::erase(survivors, candidate);
  return promote(
      group, *candidate, survivors,
      candidate->name + " is elected with its WAL at " + to_string(candidate->lsn) + "; votes: " + list_names(votes));
}

// An operator has chosen to go on with what there is. The candidate waits in stop_replication until no lease can be
// valid any more.
std::optional<Decision> forced_choice(const GroupSnapshot& group) {
  if (writer(group) != nullptr || !forced(group)) return std::nullopt;
  const Nodes votes = voters(group);
  const NodeView* candidate = elected(votes);
  const bool waiting_for_votes = std::any_of(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
    return node.goal == NodeState::report_lsn && !has_voted(group, node) && fresh(group, node);
  });
  if (candidate == nullptr || waiting_for_votes) return std::nullopt;
  Lsn known;
  for (const NodeView& node : group.nodes) known = std::max(known, node.lsn);
  const std::uint64_t behind = known.value - candidate->lsn.value;
  Decision decision =
      change("an operator accepts the loss of data: " + candidate->name + " is chosen at " + to_string(candidate->lsn) +
             ", at least " + std::to_string(behind) + " bytes of WAL behind what was reported");
  to(decision, *candidate, NodeState::stop_replication);
  decision.request = RequestOutcome::accepted;
  decision.request_message = decision.description;
  return decision;
}

std::optional<Decision> forced_promotion(const GroupSnapshot& group) {
  const NodeView* candidate = with_goal(group, NodeState::stop_replication);
  if (candidate == nullptr || !candidate->converged() || writer(group) != nullptr) return std::nullopt;
  const Millis over = group.timing.lease * 12 / 10;  // margin for clocks that run at different speeds
  for (const auto& entry : obligations(group)) {
    const NodeView* owner = group.find(entry.by);
    const bool out = owner == nullptr || owner->id == candidate->id || surely_stopped(*owner) ||
                     has_voted(group, *owner) || owner->report_age >= over;
    if (!out) return std::nullopt;
  }
  return promote(group, *candidate, {}, candidate->name + " takes over: no former primary's lease is valid any more");
}

// Those who could not be asked at first, and the former primary itself, when the election still needs them.
std::optional<Decision> late_voters(const GroupSnapshot& group) {
  const bool election = writer(group) == nullptr && leaving_primary(group) == nullptr;
  if (!election) return std::nullopt;
  for (const NodeView& node : group.nodes) {
    if (node.goal == NodeState::report_lsn || node.goal == NodeState::stop_replication) continue;
    const bool standby = can_vote(group, node);
    const bool former = fresh(group, node) && surely_stopped(node) && node.goal != NodeState::dropped &&
                        node.reported_term == group.term;
    if (!standby && !former) continue;
    Decision decision =
        change(node.name + (former ? ", a former primary that has stopped," : "") + " joins the election");
    return to(decision, node, NodeState::report_lsn);
  }
  return std::nullopt;
}

// A vote that was given for an older term does not count: ask again.
std::optional<Decision> stale_vote(const GroupSnapshot& group) {
  if (writer(group) != nullptr) return std::nullopt;
  for (const NodeView& node : group.nodes) {
    if (node.converged(NodeState::report_lsn) && node.reported_term < group.term && fresh(group, node)) {
      Decision decision =
          change(node.name + " voted for term " + std::to_string(node.reported_term.value) + ": asked again");
      return to(decision, node, NodeState::report_lsn);
    }
  }
  return std::nullopt;
}

constexpr Rule table[] = {
    {{301, "primary_lost", "the primary is dead, and enough of its standbys are healthy to fence it off",
      "term + 1; every standby that can vote: report_lsn; the primary: demote_timeout"},
     primary_lost},
    {{303, "clean_handover", "the draining primary has stopped, and the candidate has all of its WAL",
      "term + 1; candidate: wait_primary; former primary: demoted"},
     clean_handover},
    {{305, "handover_failed", "during a hand-over the candidate or the former primary is lost, or it takes too long",
      "the former primary goes on (wait_primary), or an election (report_lsn) without it"},
     handover_failed},
    {{311, "elect", "no primary; the votes satisfy every list of names that may be in force",
      "the most advanced eligible vote: wait_primary"},
     elect},
    {{313, "forced_choice", "no primary; an operator accepts the loss of data; all who can vote have voted",
      "the most advanced eligible vote: stop_replication"},
     forced_choice},
    {{315, "forced_promotion", "converged stop_replication; no former primary can hold a lease any more",
      "wait_primary"},
     forced_promotion},
    {{317, "late_voters", "an election is under way; a node that can vote was not asked yet", "report_lsn"},
     late_voters},
    {{319, "stale_vote", "an election is under way; a vote is of an older term", "report_lsn, again"}, stale_vote},
};

}  // namespace

std::span<const Rule> failover_rules() {
  return table;
}

}  // namespace pgvigil::fsm
