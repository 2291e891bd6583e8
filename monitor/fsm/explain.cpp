#include "monitor/fsm/explain.hpp"

#include <algorithm>

#include "monitor/fsm/predicates.hpp"

namespace pgvigil::fsm {

namespace {

std::string name_of(const GroupSnapshot& group, NodeId id) {
  const NodeView* node = group.find(id);
  return node == nullptr ? "node " + std::to_string(id.value) + " (removed)" : node->name;
}

std::string in_words(const GroupSnapshot& group, const SyncNames& names) {
  std::string text = "ANY " + std::to_string(names.required) + " (";
  for (const NodeId member : names.members) {
    if (text.back() != '(') text += ", ";
    text += name_of(group, member);
  }
  return text + ")";
}

// What one list still lacks, when all that `helpers` can say has been said; empty when nothing.
std::string lacking(const GroupSnapshot& group, const NamesInForce& entry, const Nodes& helpers) {
  const std::string owner = entry.by.value == 0 ? "" : name_of(group, entry.by);
  if (entry.names.asynchronous()) {
    return owner + " took writes without a synchronous standby: only " + owner + " itself holds all of them";
  }
  std::string absent;
  int present = 0;
  for (const NodeId member : entry.names.members) {
    if (std::any_of(helpers.begin(), helpers.end(), [&](const NodeView* node) { return node->id == member; })) {
      ++present;
    } else {
      absent += (absent.empty() ? "" : ", ") + name_of(group, member);
    }
  }
  const int needed = *fence_quorum(entry.names);
  if (owner.empty()) {
    return absent + " must be heard: this monitor has lost its memory, and any of them may hold what nobody else does";
  }
  return std::to_string(needed - present) + " more of " + absent + " must be heard, or " + owner + " itself, for " +
         owner + " waited for " + in_words(group, entry.names);
}

std::string best_left(const GroupSnapshot& group, const Nodes& helpers) {
  Nodes eligible;
  for (const NodeView* node : helpers) {
    const bool dead_vote = has_voted(group, *node) && !healthy(group, *node);
    if (node->candidate_priority > 0 && !dead_vote) eligible.push_back(node);
  }
  const NodeView* best = most_advanced(eligible);
  if (best == nullptr) return {};
  std::uint64_t lost = 0;
  for (const NodeView& node : group.nodes) {
    if (node.lsn.value > 0 && known_history(group, node)) lost = std::max(lost, given_up(*best, node));
  }
  return "`pgvigil perform failover --allow-data-loss` would choose " + best->name + " at " + to_string(best->lsn) +
         " and give up at least " + std::to_string(lost) + " bytes of WAL that others have reported";
}

// Somebody has promoted its PostgreSQL while this monitor was away, say. No election can choose it, for what it holds
// is not what the others hold and more; but it may be what the users want to go on with.
void tell_promoted_by_hand(const GroupSnapshot& group, Explanation& why) {
  for (const NodeView& node : group.nodes) {
    const bool by_hand = fresh(group, node) && !takes_writes(node.goal) && !without_wal(node.reported) &&
                         group.promised_timeline.value > 0 && node.timeline > group.promised_timeline;
    if (!by_hand) continue;
    why.waiting_for += "; " + node.name + " is on timeline " + std::to_string(node.timeline.value) +
                       ", which this monitor has not begun (promoted by hand?), and cannot be elected";
    why.command += std::string(why.command.empty() ? "" : "; or, ") + "to go on with what " + node.name +
                   " holds: `pgvigil drop node --force` all others, `pgvigil drop node` " + node.name +
                   ", then `pgvigil create postgres` with its PGDATA";
  }
}

Explanation no_primary(const GroupSnapshot& group, const Nodes& helpers) {
  Explanation why;
  why.rule = 311;
  if (const NodeView* former = leaving_primary(group)) {
    why.rule = 303;
    why.waiting_for = former->name + " hands over: it stops, and the candidate receives the end of its WAL";
    return why;
  }
  if (const NodeView* node = with_goal(group, NodeState::fast_forward)) {
    why.rule = 313;
    why.waiting_for = node->name + " fetches WAL that it lacks before it takes over";
    return why;
  }
  if (const NodeView* node = with_goal(group, NodeState::stop_replication)) {
    why.rule = 317;
    why.waiting_for =
        node->name + " takes over, as an operator chose, when no former primary can hold a lease any more";
    std::string holders;
    for (const NodeId id : lease_holders(group, *node)) {
      if (id.value > 0) holders += (holders.empty() ? ": " : ", ") + name_of(group, id);
    }
    why.waiting_for += holders;
    if (!healthy(group, *node)) {
      why.waiting_for = node->name + ", which an operator has chosen, is lost before it could take over";
      why.command = best_left(group, helpers);
    }
    return why;
  }
  Nodes holders;
  for (const NodeView& node : group.nodes) {
    if (node.reported != NodeState::init && node.reported != NodeState::wait_standby) holders.push_back(&node);
  }
  const bool stays = std::any_of(holders.begin(), holders.end(),
                                 [](const NodeView* node) { return node->goal != NodeState::dropped; });
  if (!stays) {
    why.waiting_for = holders.empty()
                          ? "no node holds any data"
                          : "nobody but " + list_names(holders) + " holds any data, and leaves the formation";
    why.command =
        "`pgvigil drop node --force` all nodes, and begin with one that has data (`pgvigil create postgres` "
        "with its PGDATA), or afresh";
    return why;
  }
  const auto lists = obligations(group);
  for (const NamesInForce& entry : lists) {
    if (fence_holds(group, entry, helpers)) continue;
    why.waiting_for = "no node may take over without loss: " + lacking(group, entry, helpers);
    why.command = best_left(group, helpers);
    return why;
  }
  const Nodes votes = voters(group);
  for (const NamesInForce& entry : lists) {
    if (fence_holds(group, entry, votes)) continue;
    why.rule = 0;
    why.waiting_for = "the election waits for votes; so far: " + list_names(votes);
    return why;
  }
  const bool eligible =
      std::any_of(votes.begin(), votes.end(), [](const NodeView* node) { return node->candidate_priority > 0; });
  if (!eligible) {
    why.waiting_for = "every node that could take over has candidate priority 0";
    why.command =
        "`pgvigil set node candidate-priority`, or `pgvigil perform promotion --name` of one of " + list_names(votes);
  } else if (healthy(group, *most_advanced(votes))) {
    Nodes living = votes;
    std::erase_if(living, [&](const NodeView* node) { return !healthy(group, *node); });
    why.waiting_for = "every node that has voted and may take over is lost; the others have candidate priority 0";
    why.command =
        "`pgvigil set node candidate-priority`, or `pgvigil perform promotion --name` of one of " + list_names(living);
  } else {
    why.waiting_for = most_advanced(votes)->name + " holds the most WAL, and must be well, so that it can be fetched";
    why.command = best_left(group, helpers);
  }
  return why;
}

Explanation lost_primary(const GroupSnapshot& group, const NodeView& primary, const std::string& why_dead) {
  Nodes able = possible_voters(group);
  std::erase(able, &primary);
  Explanation why;
  why.node = primary.id;
  why.rule = 301;
  const bool eligible =
      std::any_of(able.begin(), able.end(), [](const NodeView* node) { return node->candidate_priority > 0; });
  std::string missing;
  for (const NamesInForce& entry : obligations(group)) {
    if (!fence_holds(group, entry, able)) missing = lacking(group, entry, able);
  }
  why.waiting_for = primary.name + " is lost (" + why_dead.substr(0, why_dead.find(" for ")) + "), and ";
  if (able.empty()) {
    why.waiting_for += "no standby is healthy";
  } else if (!eligible) {
    why.waiting_for += "no healthy standby has a candidate priority above 0";
    why.command = "`pgvigil set node candidate-priority`";
  } else {
    why.waiting_for += "no standby may take over without loss: " + missing;
  }
  if (eligible) why.command = best_left(group, able);
  if (!primary.reason.empty()) why.waiting_for += ": " + primary.reason;
  return why;
}

// A node that has its order and has not reached it.
Explanation on_its_way(const GroupSnapshot& group, const NodeView& node) {
  Explanation why;
  why.node = node.id;
  if (!node.session_open && !fresh(group, node)) {
    why.waiting_for = "its keeper does not report; it is to become " + std::string(to_string(node.goal)) +
                      (node.reason.empty() ? "" : "; the last word of it: " + node.reason);
    why.command = node.goal == NodeState::dropped
                      ? "start its keeper (`pgvigil run`), or `pgvigil drop node --force` when it is gone for good"
                      : "see to its keeper (`pgvigil run`)";
    return why;
  }
  why.waiting_for = "its keeper carries out " + std::string(to_string(node.reported)) + " -> " +
                    std::string(to_string(node.goal)) + (node.reason.empty() ? "" : ": " + node.reason);
  return why;
}

std::optional<Explanation> lost_secondary(const GroupSnapshot& group, const NodeView& node) {
  if (healthy(group, node)) return std::nullopt;
  Explanation why;
  why.node = node.id;
  why.rule = 423;
  if (fresh(group, node)) {
    why.waiting_for = "its PostgreSQL is not well" + (node.reason.empty() ? "" : ": " + node.reason);
  } else {
    why.waiting_for = "its keeper does not report";
    why.command = "start its keeper: `pgvigil run`";
  }
  return why;
}

std::optional<Explanation> standby(const GroupSnapshot& group, const NodeView* primary, const NodeView& node) {
  Explanation why;
  why.node = node.id;
  if (node.goal == NodeState::maintenance && node.converged()) {
    why.rule = 109;
    why.waiting_for = "it is in maintenance";
    why.command = "`pgvigil disable maintenance`";
    return why;
  }
  if (!node.converged()) return on_its_way(group, node);
  if (node.goal == NodeState::secondary) return lost_secondary(group, node);
  if (!fresh(group, node)) return on_its_way(group, node);
  if (primary == nullptr) {
    why.rule = 311;
    why.waiting_for = std::string(to_string(node.goal)) + ": waits for the election";
    return why;
  }
  if (node.goal == NodeState::wait_maintenance) {
    why.rule = 431;
    why.waiting_for = primary->name + " must put names without it in force";
  } else if (node.goal == NodeState::catchingup || node.goal == NodeState::join_secondary) {
    why.rule = 421;
    why.waiting_for = node.streaming ? "it streams from " + primary->name + " and has to catch up"
                                     : "it has to stream from " + primary->name;
    if (!node.reason.empty()) why.waiting_for += ": " + node.reason;
  } else {
    why.rule = node.goal == NodeState::wait_standby ? 411 : 415;
    why.waiting_for = primary->name + " must have reached its state first";
  }
  return why;
}

std::optional<Explanation> of_primary(const GroupSnapshot& group, const NodeView& node) {
  auto why_dead = dead(group, node);
  if (!why_dead) why_dead = never_came(group, node);
  if (why_dead) {
    Explanation why = lost_primary(group, node, *why_dead);
    tell_promoted_by_hand(group, why);
    return why;
  }
  if (!node.converged()) return on_its_way(group, node);
  Explanation why;
  why.node = node.id;
  if (!healthy(group, node)) {
    why.rule = 301;
    why.waiting_for = fresh(group, node) ? "its PostgreSQL is not well: " + node.reason
                                         : "its keeper does not report, but its PostgreSQL still answers somebody";
    if (!fresh(group, node)) why.command = "start its keeper: `pgvigil run`";
    return why;
  }
  const auto names = desired_names(group, node);
  const bool too_few = !names && group.nodes.size() > 1 && node.goal != NodeState::single;
  if (too_few && !group.names.empty()) {
    const SyncNames& in_force = group.names.back().names;
    why.rule = 503;
    why.waiting_for = "number_sync_standbys is " + std::to_string(group.number_sync_standbys) +
                      " and fewer secondaries are left: " +
                      (in_force.asynchronous() ? "until there are enough, " + node.name + " waits for nobody"
                                               : "commits wait for " + in_words(group, in_force));
    why.command = "bring a standby back, or `pgvigil set formation number-sync-standbys`";
    return why;
  }
  if (node.goal == NodeState::wait_primary && group.nodes.size() > 1) {
    why.rule = 505;
    why.waiting_for =
        group.names.size() > 1 || !group.names.back().names.asynchronous()
            ? "the new names must be in force, and the standbys must hold everything before them"
            : "no secondary with replication quorum is left: it takes writes without a synchronous standby";
    if (!node.reason.empty()) why.waiting_for += ": " + node.reason;
    return why;
  }
  if (node.goal == NodeState::apply_settings) {
    why.rule = 501;
    why.waiting_for = "the new names must be in force, and the standbys must hold everything before them";
    if (!node.reason.empty()) why.waiting_for += ": " + node.reason;
    return why;
  }
  return std::nullopt;
}

Explanation learning(const GroupSnapshot& group) {
  Explanation why;
  why.rule = 603;
  std::string silent;
  for (const NodeView& node : group.nodes) {
    if (!node.account) silent += (silent.empty() ? "" : ", ") + node.name;
  }
  why.waiting_for = "this monitor's memory is old or new, and it learns the state of the group from its nodes; " +
                    (silent.empty() ? "nobody that was heard holds any data" : "not heard yet: " + silent);
  why.command =
      "start their keepers; a node that is gone for good: `pgvigil drop node --force`; to go on with those that were "
      "heard, and lose what they do not hold: `pgvigil perform failover --allow-data-loss`";
  return why;
}

}  // namespace

std::vector<Explanation> explain(const GroupSnapshot& group) {
  std::vector<Explanation> all;
  if (group.nodes.empty()) return all;
  if (group.learning) {
    all.push_back(learning(group));
    return all;
  }
  const NodeView* primary = writer(group);
  if (primary == nullptr) {
    // Who is heard and may still say something, besides those who have voted.
    Nodes helpers = voters(group);
    for (const NodeView& node : group.nodes) {
      const bool former = fresh(group, node) && (being_demoted(node.goal) || takes_writes(node.reported));
      if (!has_voted(group, node) && (can_vote(group, node) || former)) helpers.push_back(&node);
    }
    all.push_back(no_primary(group, helpers));
    tell_promoted_by_hand(group, all.back());
  }
  for (const NodeView& node : group.nodes) {
    const auto why = &node == primary ? of_primary(group, node) : standby(group, primary, node);
    if (why) all.push_back(*why);
  }
  return all;
}

}  // namespace pgvigil::fsm
