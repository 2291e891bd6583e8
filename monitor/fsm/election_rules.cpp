// Rules 311-399: there is no primary; who takes over.
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

Term next(Term term) {
  return Term{term.value + 1};
}

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
  for (const NodeView* node : survivors) {
    if (has_voted(group, *node)) to(decision, *node, NodeState::join_secondary);
  }
  decision.heir = candidate.id;
  decision.names_goal = NamesInForce{names_for_promotion(group, candidate, survivors), candidate.id};
  decision.promised_timeline = Timeline{std::max(group.promised_timeline.value, candidate.timeline.value) + 1};
  return decision;
}

namespace {

std::optional<NodeId> named_by_operator(const GroupSnapshot& group) {
  return group.request && group.request->kind == RequestKind::promotion ? group.request->node : std::nullopt;
}

// A request that the election itself answers: the named node is chosen, or nothing had to be given up.
void answer_request(const GroupSnapshot& group, const NodeView& candidate, Decision& decision) {
  if (named_by_operator(group) == candidate.id || forced(group)) accept(decision);
}

// For a fetch, when another one could take over without any.
constexpr Millis fetch_limit{5000};

bool election(const GroupSnapshot& group) {
  return writer(group) == nullptr && leaving_primary(group) == nullptr;
}

// The votes that are here would do, but an operator prefers a node whose vote is still on its way.
bool preferred_is_late(const GroupSnapshot& group, const NodeView& candidate) {
  if (named_by_operator(group) == candidate.id) return false;
  return std::any_of(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
    return node.goal == NodeState::report_lsn && !has_voted(group, node) && can_vote(group, node) &&
           node.candidate_priority > candidate.candidate_priority && !node.disk_full &&
           node.goal_age < group.timing.preferred_vote;
  });
}

Nodes living(const GroupSnapshot& group, Nodes votes) {
  std::erase_if(votes, [&](const NodeView* vote) { return !healthy(group, *vote); });
  return votes;
}

std::optional<Decision> elect(const GroupSnapshot& group) {
  const NodeView* fetching = with_goal(group, NodeState::fast_forward);
  if (!election(group) || (fetching != nullptr && !fetching->converged())) return std::nullopt;
  Nodes votes = voters(group);
  if (votes.empty() || !all_fences_hold(group, votes)) return std::nullopt;
  auto choice = elected(group, votes, named_by_operator(group));
  // The best vote is of one that has died since; the others may hold all that was acknowledged, too.
  if (!choice) {
    votes = living(group, votes);
    if (all_fences_hold(group, votes)) choice = elected(group, votes, named_by_operator(group));
  }
  if (!choice || preferred_is_late(group, *choice->candidate)) return std::nullopt;
  if (choice->source != nullptr) {
    Decision decision = change(choice->candidate->name + " is to take over, and fetches the WAL from " +
                               to_string(choice->candidate->lsn) + " to " + to_string(choice->source->lsn) + " from " +
                               choice->source->name);
    to(decision, *choice->candidate, NodeState::fast_forward);
    decision.goals.back().source = choice->source->id;
    return decision;
  }
  Nodes survivors = votes;
  std::erase(survivors, choice->candidate);
  Decision decision = promote(group, *choice->candidate, survivors,
                              choice->candidate->name + " is elected with its WAL at " +
                                  to_string(choice->candidate->lsn) + "; votes: " + list_names(votes));
  answer_request(group, *choice->candidate, decision);
  return decision;
}

std::optional<Decision> fetch_failed(const GroupSnapshot& group) {
  const NodeView* node = with_goal(group, NodeState::fast_forward);
  if (node == nullptr || !election(group)) return std::nullopt;
  const NodeView* source = node->source ? group.find(*node->source) : nullptr;
  const bool source_gone = source == nullptr || !has_voted(group, *source) || gone(group, *source) ||
                           (fresh(group, *source) && !healthy(group, *source));
  const bool node_gone = gone(group, *node);
  // Somebody who has everything is better than a favourite that does not get it.
  Nodes votes = living(group, voters(group));
  const bool would_do = all_fences_hold(group, votes);
  const NodeView* other = would_do ? best_with_everything(group, votes) : nullptr;
  if (other == node) other = nullptr;
  const Millis patience =
      other != nullptr ? std::min(fetch_limit, group.timing.drain_timeout) : group.timing.drain_timeout;
  const bool too_long = node->goal_age >= patience;
  if (!source_gone && !node_gone && !too_long) return std::nullopt;
  const std::string why = node->name + " cannot fetch the missing WAL (" +
                          (node_gone     ? std::string("it is lost")
                           : source_gone ? "its source is lost"
                                         : "it takes too long") +
                          ")";
  if (other != nullptr) {
    std::erase_if(votes, [&](const NodeView* vote) { return vote == other || vote == node; });
    Decision decision = promote(group, *other, votes, why + ": " + other->name + " is elected");
    answer_request(group, *other, decision);
    return to(decision, *node, NodeState::report_lsn);
  }
  Decision decision = change(why + ": it votes again");
  return to(decision, *node, NodeState::report_lsn);
}

// An operator has chosen to go on with what there is. The candidate waits in stop_replication until no lease can be
// valid any more.
std::optional<Decision> forced_choice(const GroupSnapshot& group) {
  if (!forced(group) || !election(group)) return std::nullopt;
  const Nodes votes = voters(group);
  const bool waiting_for_votes = std::any_of(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
    return (node.goal == NodeState::report_lsn || node.goal == NodeState::fast_forward) && !has_voted(group, node) &&
           !gone(group, node) && node.goal_age < group.timing.lease;  // it may never be able to
  });
  if (waiting_for_votes) return std::nullopt;
  Nodes eligible;
  for (const NodeView* vote : votes) {
    if (healthy(group, *vote) && vote->candidate_priority > 0) eligible.push_back(vote);
  }
  const NodeView* candidate = most_advanced(eligible);
  if (candidate == nullptr) return std::nullopt;
  std::uint64_t lost = 0;
  for (const NodeView& node : group.nodes) {
    if (node.lsn.value > 0 && known_history(group, node)) lost = std::max(lost, given_up(*candidate, node));
  }
  Decision decision =
      change("an operator accepts the loss of data: " + candidate->name + " is chosen at " + to_string(candidate->lsn) +
             "; at least " + std::to_string(lost) + " bytes of WAL that others have reported are given up");
  for (const NodeView& node : group.nodes) {
    if (node.goal == NodeState::stop_replication && node.id != candidate->id) to(decision, node, NodeState::report_lsn);
  }
  if (candidate->goal != NodeState::stop_replication) to(decision, *candidate, NodeState::stop_replication);
  return accept(decision);
}

std::optional<Decision> forced_promotion(const GroupSnapshot& group) {
  const NodeView* candidate = with_goal(group, NodeState::stop_replication);
  if (candidate == nullptr || !has_voted(group, *candidate) || !healthy(group, *candidate)) return std::nullopt;
  if (!election(group)) return std::nullopt;
  if (!lease_holders(group, *candidate).empty()) return std::nullopt;
  Nodes survivors = voters(group);
  std::erase(survivors, candidate);
  return promote(group, *candidate, survivors,
                 candidate->name + " takes over: no former primary's lease is valid any more");
}

// Those who could not be asked at first, and the former primary itself, when the election still needs them.
std::optional<Decision> late_voters(const GroupSnapshot& group) {
  if (!election(group)) return std::nullopt;
  for (const NodeView& node : group.nodes) {
    if (node.goal == NodeState::report_lsn || node.goal == NodeState::stop_replication ||
        node.goal == NodeState::fast_forward) {
      continue;
    }
    // Told to stop: it votes afterwards. (It may have been promoted and not have come to say so.)
    const bool stopping = being_demoted(node.goal) && !node.converged();
    const bool standby = can_vote(group, node) && !stopping;
    const bool former = stopped_with_wal(group, node) && node.reported_term == group.term;
    if (unheard_primary(group, node)) {
      Decision decision = change(node.name + ", a former primary, stops before the election");
      return to(decision, node, NodeState::demote_timeout);
    }
    if (!standby && !former && !orphaned(group, node)) continue;
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
    {{311, "elect",
      "no primary; the votes satisfy every list of names that may be in force; none of a higher candidate priority is "
      "on its way (1 s at most)",
      "the best vote: wait_primary, the other votes: join_secondary; or fast_forward when another vote holds more WAL"},
     elect},
    {{313, "fetch_failed", "fast_forward, but the source or the node is lost, or it takes too long",
      "report_lsn; another vote that has everything: wait_primary"},
     fetch_failed},
    {{315, "forced_choice", "no primary; an operator accepts the loss of data; all who can vote have voted",
      "the most advanced eligible vote: stop_replication"},
     forced_choice},
    {{317, "forced_promotion", "converged stop_replication; no former primary can hold a lease any more",
      "wait_primary"},
     forced_promotion},
    {{319, "late_voters", "an election is under way; a node that can vote was not asked yet", "report_lsn"},
     late_voters},
    {{321, "stale_vote", "an election is under way; a vote is of an older term", "report_lsn, again"}, stale_vote},
};

}  // namespace

std::span<const Rule> election_rules() {
  return table;
}

}  // namespace pgvigil::fsm
