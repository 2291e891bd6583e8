// Rules 601-699: the monitor has lost its memory (its database was restored from a backup, or it is new), and its nodes
// are at work. What they have written down is put together again. Until then nothing is decided: an order by old
// knowledge could promote a node that lacks commits. The argument is in README.md, "A monitor without memory".
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

// Orders of the lost memory that nobody heard has been told of: their numbers are not given again.
constexpr std::int64_t room = 100;
// Without nodes that an operator has given up: they may have learned, too, and have gone on from there.
constexpr std::int64_t room_by_force = 10000;

// The primary, or one that was giving the role away and may keep it: nobody else was promoted for its term.
bool had_the_role(const Account& account) {
  return takes_writes(account.goal) || account.goal == NodeState::draining ||
         account.goal == NodeState::prepare_maintenance;
}

bool has_written(const Account& account) {
  return had_the_role(account) || takes_writes(account.reported) || being_demoted(account.reported) ||
         being_demoted(account.goal);
}

struct Memory {
  Nodes heard;
  Nodes unheard;
  Nodes left;  // on record, but no member any more in the newest list of members that is known
  Term top;
  Timeline latest;    // that somebody has WAL of
  Timeline promised;  // that somebody may have WAL of
  const NodeView* last_primary{nullptr};
  bool removed{false};  // somebody has been removed by force meanwhile, who may have known more

  bool all_heard() const { return unheard.empty() && !removed; }
  bool is_member(const NodeView& node) const { return std::find(left.begin(), left.end(), &node) == left.end(); }
};

Memory remembered(const GroupSnapshot& group) {
  Memory memory;
  memory.promised = group.promised_timeline;
  memory.removed = !group.names.empty();
  const Account* newest = nullptr;
  for (const NodeView& node : group.nodes) {
    if (!node.account) continue;
    const Account& account = *node.account;
    memory.heard.push_back(&node);
    memory.top = std::max(memory.top, account.term);
    if (may_hold_commits(node)) memory.latest = std::max(memory.latest, account.timeline);
    memory.promised = std::max({memory.promised, account.timeline, account.promised_timeline});
    if (newest == nullptr || account.peers_version > newest->peers_version) newest = &account;
    const NodeView*& last = memory.last_primary;
    if (had_the_role(account) && (last == nullptr || account.term > last->account->term)) last = &node;
  }
  for (const NodeView& node : group.nodes) {
    if (node.account) continue;
    const bool member =
        newest == nullptr || newest->peers_version < group.peers_version ||
        std::any_of(newest->peers.begin(), newest->peers.end(), [&](const Peer& peer) { return peer.id == node.id; });
    (member ? memory.unheard : memory.left).push_back(&node);
  }
  return memory;
}

// The one that is on record as the first node of a group that has not begun.
const NodeView* founder(const GroupSnapshot& group, const Memory& memory) {
  const auto found = std::find_if(memory.heard.begin(), memory.heard.end(), [](const NodeView* node) {
    return node->goal == NodeState::single && node->goal_seq > 0 && node->account->reported == NodeState::init;
  });
  return memory.all_heard() && found != memory.heard.end() && group.nodes.size() == memory.heard.size() ? *found
                                                                                                        : nullptr;
}

// It writes by a list of names, and so many of that list have been heard that no election can have been held without
// one of them, which would have promised it. But one that an operator has forced: of that, this record may know the
// term.
bool quorum_heard(const GroupSnapshot& group, const Memory& memory) {
  if (memory.last_primary == nullptr) return false;
  const Account& primary = *memory.last_primary->account;
  if (!takes_writes(primary.goal) || !takes_writes(primary.reported)) return false;
  if (primary.names.asynchronous() || primary.term < std::max(memory.top, group.term)) return false;
  const auto members = std::count_if(memory.heard.begin(), memory.heard.end(), [&](const NodeView* node) {
    const auto& list = primary.names.members;
    return std::find(list.begin(), list.end(), node->id) != list.end();
  });
  return members >= primary.names.required;
}

bool still_primary(const GroupSnapshot& group, const Memory& memory) {
  if (memory.last_primary == nullptr) return false;
  const Account& account = *memory.last_primary->account;
  if (!memory.all_heard()) return quorum_heard(group, memory);
  // Newer promises without a newer timeline: an election that has promoted nobody.
  return account.term == memory.top || account.timeline >= memory.promised;
}

NodeState goal_beside(const NodeView& node) {
  const bool maintained = node.goal == NodeState::maintenance || node.goal == NodeState::wait_maintenance;
  if (!node.account) return maintained ? node.goal : NodeState::catchingup;  // its operator has switched it off
  const Account& account = *node.account;
  switch (account.goal) {
    case NodeState::secondary:
    case NodeState::wait_standby:
    case NodeState::wait_maintenance:
    case NodeState::maintenance:
    case NodeState::demoted:
    case NodeState::demote_timeout:
    case NodeState::dropped: return account.goal;
    default: break;
  }
  if (account.goal == NodeState::init) return NodeState::wait_standby;
  return has_written(account) ? NodeState::demote_timeout : NodeState::catchingup;
}

NodeState goal_in_election(const NodeView& node) {
  const NodeState beside = goal_beside(node);
  const bool votes =
      node.account && (beside == NodeState::secondary || beside == NodeState::catchingup) && may_hold_commits(node);
  return votes ? NodeState::report_lsn : beside;
}

// Nobody knows any more who waited for whom: every node that may hold a commit has to be heard. Also one that has left:
// it may have been removed by force, with commits that nobody else holds. Not one that has no WAL of a timeline which
// another has: whoever began that one held every commit until then.
NamesInForce everybody(const GroupSnapshot& group, const Memory& memory) {
  NamesInForce list;
  list.names.required = 1;  // k - 1 + 1: all of them
  for (const NamesInForce& removed : group.names) {
    list.names.members.insert(list.names.members.end(), removed.names.members.begin(), removed.names.members.end());
  }
  for (const NodeView& node : group.nodes) {
    const bool superseded = node.account && node.account->timeline < memory.latest;
    if (may_hold_commits(node) && !superseded) list.names.members.push_back(node.id);
  }
  return list;
}

void fill_in(const GroupSnapshot& group, const Memory& memory, Decision& decision) {
  Learned learned;
  learned.names_version = group.names_version;
  learned.peers_version = group.peers_version;
  for (const NodeView& node : group.nodes) {
    learned.seq = std::max(learned.seq, node.goal_seq);
    if (!node.account) continue;
    learned.seq = std::max(learned.seq, node.account->seq);
    learned.names_version = std::max(learned.names_version, node.account->names_version);
    learned.peers_version = std::max(learned.peers_version, node.account->peers_version);
  }
  const bool given_up = memory.removed || (forced(group) && !memory.unheard.empty());
  const std::int64_t beyond = given_up ? room_by_force : room;
  // Whom an earlier monitor without memory has told something, and nobody else, need not be heard. That one has begun
  // with the same term, but at another time; and it has not given a number a millisecond.
  for (std::int64_t* number : {&learned.seq, &learned.names_version, &learned.peers_version}) {
    *number = std::max(*number + beyond, group.clock);
  }
  decision.learned = learned;
  decision.promised_timeline = memory.promised;
  // Not by more: a promotion has to pass over every number in between.
  if (!memory.all_heard()) decision.promised_timeline->value += room;
  decision.term = Term{std::max(group.term, memory.top).value + beyond};
  for (const NodeView* node : memory.left) decision.remove.push_back(node->id);
}

Decision with_primary(const GroupSnapshot& group, const Memory& memory) {
  const NodeView& primary = *memory.last_primary;
  const Account& account = *primary.account;
  Decision decision = change("learned from " + list_names(memory.heard) + ": " + primary.name + " is the primary");
  fill_in(group, memory, decision);
  std::vector<NamesInForce>& names = decision.learned->names;
  // What is surely in force is all that is in force; else there may be older lists that only the lost memory held.
  if (!account.names_confirmed && account.goal != NodeState::single) names.push_back(everybody(group, memory));
  names.push_back(NamesInForce{account.names, primary.id});
  to(decision, primary,
     takes_writes(account.goal)            ? account.goal
     : account.reported == NodeState::init ? NodeState::single
                                           : NodeState::wait_primary);
  for (const NodeView& node : group.nodes) {
    if (&node != &primary && memory.is_member(node)) to(decision, node, goal_beside(node));
  }
  return decision;
}

Decision with_election(const GroupSnapshot& group, const Memory& memory) {
  Decision decision = change("learned from " + list_names(memory.heard) + ": nobody is the primary; asking for votes");
  fill_in(group, memory, decision);
  decision.learned->names.push_back(everybody(group, memory));
  for (const NodeView& node : group.nodes) {
    if (memory.is_member(node)) to(decision, node, goal_in_election(node));
  }
  return decision;
}

std::optional<Decision> not_now(const GroupSnapshot& group) {
  if (!group.request) return std::nullopt;
  if (forced(group)) {
    const bool anybody = std::any_of(group.nodes.begin(), group.nodes.end(),
                                     [](const NodeView& node) { return node.account.has_value(); });
    if (anybody) return std::nullopt;
    return refuse("no node has told this monitor anything yet");
  }
  return refuse(
      "this monitor learns the state of the group from its nodes first; `pgvigil show why` tells for whom it "
      "waits");
}

std::optional<Decision> learned(const GroupSnapshot& group) {
  Memory memory = remembered(group);
  const bool data =
      std::any_of(memory.heard.begin(), memory.heard.end(), [](const NodeView* n) { return may_hold_commits(*n); });
  if (memory.last_primary == nullptr && !data) {
    memory.last_primary = founder(group, memory);
    if (memory.last_primary == nullptr && !forced(group)) return std::nullopt;
  }
  if (!memory.unheard.empty() && !quorum_heard(group, memory) && !forced(group)) return std::nullopt;
  return still_primary(group, memory) ? with_primary(group, memory) : with_election(group, memory);
}

constexpr Rule table[] = {
    {{601, "not_now", "a command, while the monitor learns from its nodes", "refused"}, not_now},
    {{603, "learned",
      "the monitor's memory is lost, and all nodes have told what they know, or a primary and enough of the standbys "
      "that it waits for",
      "a term above all that was promised; the primary stays, or every node votes"},
     learned},
};

}  // namespace

bool may_hold_commits(const NodeView& node) {
  if (!node.account) return true;
  return node.account->goal != NodeState::dropped && !node.account->copy_unfinished &&
         !without_wal(node.account->reported);
}

std::span<const Rule> learning_rules() {
  return table;
}

}  // namespace pgvigil::fsm
