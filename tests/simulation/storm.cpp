// What is done to a world, and what it has to look like when that is over.
#include <algorithm>
#include <utility>

#include "monitor/fsm/explain.hpp"
#include "monitor/fsm/predicates.hpp"
#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

namespace {

constexpr Time heal_limit = 150000;
constexpr Time takeover_limit = 60000;
constexpr Time away_limit = 60000;

}  // namespace

void World::inject(const Fault& fault) {
  const int node = std::min(fault.node, nodes_);
  const int other = std::min(fault.other, nodes_);
  const auto n = static_cast<std::size_t>(node);
  const auto o = static_cast<std::size_t>(other);
  const Time until = now_ + fault.lasts;
  if (trace_) note("FAULT " + to_string(fault));
  const auto cut = [&](std::size_t a, std::size_t b) { cut_[a][b] = std::max(cut_[a][b], until); };
  switch (fault.kind) {
    case FaultKind::kill_postgres: return crash(node);
    case FaultKind::kill_keeper:
      kill_keeper(node);
      at(until, Kind::restart_keeper, node);
      return;
    case FaultKind::kill_node:
      crash(node);
      kill_keeper(node);
      at(until, Kind::restart_keeper, node);
      return;
    case FaultKind::pause_keeper: keeper_of(node).paused_until = std::max(keeper_of(node).paused_until, until); return;
    case FaultKind::pause_postgres: pg(node).paused_until = std::max(pg(node).paused_until, until); return;
    case FaultKind::pause_node:
      keeper_of(node).paused_until = std::max(keeper_of(node).paused_until, until);
      pg(node).paused_until = std::max(pg(node).paused_until, until);
      return;
    case FaultKind::cut:
      if (node == other) return;
      cut(n, o);
      cut(o, n);
      return;
    case FaultKind::cut_one_way:
      if (node != other) fault.value < 50 ? cut(n, o) : cut(o, n);
      return;
    case FaultKind::isolate:
      for (std::size_t peer = 0; peer <= static_cast<std::size_t>(nodes_); ++peer) {
        if (peer == n) continue;
        cut(n, peer);
        cut(peer, n);
      }
      return;
    case FaultKind::cut_monitor:
      for (std::size_t peer = 1; peer <= static_cast<std::size_t>(nodes_); ++peer) {
        cut(0, peer);
        cut(peer, 0);
      }
      return;
    case FaultKind::noise:
      noisy_until_ = std::max(noisy_until_, until);
      loss_ = plan_.quiet ? 1 : fault.value / 3;
      jitter_ = plan_.quiet ? 200 : fault.value * 5;
      return;
    case FaultKind::kill_monitor:
      monitor_alive_ = false;
      at(until, Kind::restart_monitor);
      return;
    case FaultKind::kill_database:
      database_up_ = false;
      store_.forget_reports();
      for (auto& sessions : sessions_) sessions.clear();
      for (int peer = 1; peer <= nodes_; ++peer) {
        Keeper& k = keeper_of(peer);
        if (k.session == 0 || !usable(0, peer)) continue;
        k.session = 0;
        k.awaiting = false;
        wake_link(peer, latency());
      }
      at(until, Kind::restart_database);
      return;
    case FaultKind::broken_disk:
      broken_until_[n] = until;
      crash(node);
      return;
    case FaultKind::full_disk:
      full_until_[n] = std::max(full_until_[n], until);
      if (fault.value < 50) crash(node);  // no room for WAL: it cannot even start
      return disk_fills(node);
    case FaultKind::cancel: pg(node).waiting.clear(); return;
    case FaultKind::failover:
      if (fault.value < 50) return writer_steps_down();
      return operator_asks(RequestKind::failover, store_.group.nodes.empty() ? 0 : index_of(store_.group.nodes[0].id),
                           false);
    case FaultKind::promotion: return operator_asks(RequestKind::promotion, node, false);
    case FaultKind::forced_failover:
      return operator_asks(RequestKind::failover, store_.group.nodes.empty() ? 0 : index_of(store_.group.nodes[0].id),
                           true);
    case FaultKind::maintenance: return operator_asks(RequestKind::start_maintenance, node, fault.value < 50);
    case FaultKind::end_maintenance: return operator_asks(RequestKind::stop_maintenance, node, false);
    case FaultKind::drop:
      if (store_.group.nodes.size() > 1) operator_asks(RequestKind::drop_node, node, false);
      return;
    case FaultKind::add:
      if (nodes_ + 1 < max_nodes && store_.group.nodes.size() < 7) at(now_ + 1, Kind::register_node, ++nodes_);
      return;
    case FaultKind::remove:
      if (store_.group.nodes.size() > 1 && database_up_ && store_.group.find(NodeId{node}) != nullptr) {
        removed_by_force_ = true;
        removed_.insert(node);
        store_.remove_by_force(NodeId{node});
        wake_monitor();
      }
      return;
    case FaultKind::set_sync:
      store_.group.number_sync_standbys = fault.value % std::max(1, static_cast<int>(store_.group.nodes.size()));
      wake_monitor();
      return;
    case FaultKind::set_priority:
      for (NodeView& view : store_.group.nodes) {
        if (index_of(view.id) == node) view.candidate_priority = fault.value < 30 ? 0 : fault.value;
      }
      wake_monitor();
      return;
    case FaultKind::restore_monitor: return restore_monitor(fault.value);
    case FaultKind::set_quorum:
      for (NodeView& view : store_.group.nodes) {
        if (index_of(view.id) == node) view.replication_quorum = fault.value < 50;
      }
      wake_monitor();
      return;
  }
}

// The faults have ended by themselves; an operator tidies up what is his. In some seeds the primary goes away then, in
// whatever state the storm has left the group, and the others have to do without it.
void World::heal() {
  healed_ = true;
  heal_deadline_ = now_ + heal_limit + longer();
  note("--- healed");
  const NodeView* primary = fsm::writer(store_.group);
  if (primary == nullptr || plan_.quiet || seed_ % 6 != 1) return;
  heal_deadline_ += away_limit + 2 * plan_.slow + longer();
  go_away(index_of(primary->id));
}

void World::go_away(int node) {
  away_ = node;
  away_until_ = now_ + away_limit + 2 * plan_.slow + longer();
  heal_deadline_ = std::max(heal_deadline_, away_until_ + takeover_limit + longer());
  note("AWAY node " + std::to_string(node));
  crash(node);
  kill_keeper(node);
  at(away_until_ + 1000, Kind::restart_keeper, node);
}

// One standby alone gets the primary's last WAL, which nobody confirms, before the primary goes; and goes itself as
// soon as it has voted.
void World::part_and_kill(const NodeView& primary) {
  const std::vector<NodeId>& members = store_.group.names.back().names.members;
  const NodeId ahead = members[static_cast<std::size_t>(random_.index(static_cast<int>(members.size())))];
  const Time until = now_ + random_.between(300, 900);
  const auto from = static_cast<std::size_t>(index_of(primary.id));
  for (const NodeId member : members) {
    const auto to = static_cast<std::size_t>(index_of(member));
    if (member != ahead) cut_[from][to] = cut_[to][from] = until;
  }
  note("PART the primary " + std::to_string(from) + " from all but " + std::to_string(index_of(ahead)));
  healthy_since_ = -1;
  heal_deadline_ = until + away_limit + 2 * plan_.slow + longer() + 2000 + takeover_limit + longer();
  at(until - 1, Kind::lose_voter, index_of(primary.id));
}

void World::lose_voter(int primary) {
  if (primary != 0) {
    note("KILL AGAIN node " + std::to_string(primary));
    crash(primary);
    kill_keeper(primary);
    // Not before those who are left have been judged: it could not take part in the last moment.
    at(now_ + away_limit + 2 * plan_.slow + longer() + 2000, Kind::restart_keeper, primary);
    at(now_ + 1, Kind::lose_voter);
    return;
  }
  const GroupSnapshot& group = store_.group;
  const fsm::Nodes votes = fsm::voters(group);
  const NodeView* top = fsm::most_advanced(votes);
  if (top != nullptr && fsm::writer(group) == nullptr) return go_away(index_of(top->id));
  if (now_ < heal_deadline_) at(now_ + 1, Kind::lose_voter);
}

// A planned hand-over, and in the middle of it the one that was to take over goes away for long.
void World::lose_successor(int former) {
  const GroupSnapshot& group = store_.group;
  const NodeView* heir = fsm::writer(group);
  if (heir == nullptr) heir = fsm::with_goal(group, NodeState::prepare_promotion);
  const int node = heir != nullptr ? index_of(heir->id) : former;
  healthy_since_ = -1;
  go_away(node);
}

// Those who hold data have had a minute: when they are enough for every list, one of them is the primary by now.
void World::without_the_primary() {
  unhealthy();  // for what its operator does
  if (now_ < away_until_) return;
  const GroupSnapshot& group = store_.group;
  const NodeView* primary = fsm::writer(group);
  const int away = std::exchange(away_, 0);
  if (primary != nullptr && index_of(primary->id) != away) return;
  // While an earlier command is pending nobody can end a maintenance: who was in one has not had its minute.
  if (maintenance_at_ >= 0 && now_ - maintenance_at_ < away_limit / 2) return;
  fsm::Nodes able;
  for (const NodeView& node : group.nodes) {
    const int index = index_of(node.id);
    const Postgres& p = pg(index);
    const bool holds_data = p.exists && !p.copy_unfinished && p.flushed >= p.consistent;
    const bool part = node.reported != NodeState::init && node.reported != NodeState::wait_standby &&
                      node.goal != NodeState::dropped && node.goal != NodeState::maintenance;
    const bool heard = keeper_of(index).alive && fsm::fresh(group, node) && fsm::known_history(group, node);
    if (index != away && holds_data && part && heard) able.push_back(&node);
  }
  const bool candidate =
      std::any_of(able.begin(), able.end(), [](const NodeView* node) { return node->candidate_priority > 0; });
  if (!candidate || !fsm::all_fences_hold(group, able)) return;
  fail("L1: the primary is away, and nobody takes over:" + explanations());
}

// What `show why` would say.
std::string World::explanations() const {
  std::string said;
  for (const fsm::Explanation& e : fsm::explain(store_.group)) said += " [" + e.waiting_for + "]";
  return said;
}

std::string World::unhealthy() {
  GroupSnapshot& group = store_.group;
  help_to_learn();
  if (group.learning) return "the monitor learns";
  const int quorum = static_cast<int>(std::count_if(group.nodes.begin(), group.nodes.end(),
                                                    [](const NodeView& node) { return node.replication_quorum; }));
  if (group.number_sync_standbys > std::max(0, quorum - 1)) group.number_sync_standbys = std::max(0, quorum - 1);
  for (NodeView& node : group.nodes) node.candidate_priority = std::max(1, node.candidate_priority);
  for (const NodeView& node : group.nodes) {
    if (node.goal != NodeState::maintenance && node.goal != NodeState::wait_maintenance) continue;
    if (!group.request) operator_asks(RequestKind::stop_maintenance, index_of(node.id), false);
    if (group.request) maintenance_at_ = now_;
    return node.name + " is in maintenance";
  }
  const NodeView* primary = fsm::writer(group);
  if (primary == nullptr) return "no node is to take writes";
  if (!primary->converged()) return primary->name + " has not become " + std::string(to_string(primary->goal));
  if (!pg(index_of(primary->id)).writable(now_)) return primary->name + " is not writable";
  bool protectors = false;
  for (const NodeView& node : group.nodes) {
    if (&node == primary) continue;
    if (!node.converged(NodeState::secondary)) {
      return node.name + " is " + std::string(to_string(node.reported)) + " -> " + std::string(to_string(node.goal));
    }
    if (pg(index_of(node.id)).receiving_from != index_of(primary->id)) return node.name + " does not stream";
    protectors = protectors || (node.replication_quorum);
  }
  const NodeState wanted = group.nodes.size() == 1 ? NodeState::single
                           : protectors            ? NodeState::primary
                                                   : NodeState::wait_primary;
  if (primary->goal != wanted) return primary->name + " is " + std::string(to_string(primary->goal));
  if (group.names.size() > 1) return "a change of names is under way";
  if (group.request) return "a request is pending";
  if (now_ - last_ack_ > 3000) return "no commit is acknowledged";
  return {};
}

void World::check() {
  at(now_ + 250, Kind::check);
  if (now_ == 8000) quiet_term_ = plan_.quiet && unhealthy().empty() ? store_.group.term.value : 0;
  if (!healed_) {
    Time end = plan_.storm_ends;
    for (std::size_t i = 0; i < plan_.faults.size(); ++i) {
      if (!disabled_.contains(static_cast<int>(i))) end = std::max(end, plan_.faults[i].at + plan_.faults[i].lasts);
    }
    if (now_ < end + 500) return;
    if (quiet_term_ > 0 && store_.group.term.value != quiet_term_) fail("L5: a failover without a cause");
    heal();
  }
  if (store_.group.request && store_.group.request->age > Millis{75000}) fail("L4: a request is not answered");
  const bool any_data = std::any_of(store_.group.nodes.begin(), store_.group.nodes.end(), [this](const NodeView& node) {
    const Postgres& p = pg(index_of(node.id));
    // Who leaves, and whose successors were then removed by force, may be all that is left.
    const bool leaves = node.goal == NodeState::dropped && removed_by_force_;
    return node.reported != NodeState::init && node.reported != NodeState::wait_standby && !leaves && p.exists &&
           !p.copy_unfinished && p.flushed >= p.consistent;
  });
  if (!any_data) {  // the last node that had it was dropped: nothing is left to keep alive
    finished_ = true;
    return;
  }
  if (away_ != 0) return without_the_primary();
  if (second_victim_ != 0) return after_the_standby();
  if (hung_ != 0) return beside_the_hung();
  if (lasting_judged_at_ != 0) return beside_the_fault();
  const std::string why = unhealthy();
  if (!why.empty()) {
    healthy_since_ = -1;
    empty_what_is_refused();
    // Only where data was taken away or left out by force may a person be needed, or where nobody remembers how a node
    // has left.
    const auto& lists = store_.group.names;
    const bool forgotten = std::any_of(lists.begin(), lists.end(), [this](const NamesInForce& entry) {
      const auto& members = entry.names.members;
      return entry.by.value == 0 && std::any_of(members.begin(), members.end(),
                                                [this](NodeId id) { return store_.group.find(id) == nullptr; });
    });
    if ((removed_by_force_ || learned_by_force_ || forgotten) && now_ - asked_help_at_ > 15000) {
      asked_help_at_ = now_;
      const auto explanations = fsm::explain(store_.group);
      const bool advised = std::any_of(explanations.begin(), explanations.end(), [](const fsm::Explanation& e) {
        return e.command.find("allow-data-loss") != std::string::npos;
      });
      if (advised && !store_.group.request)
        operator_asks(RequestKind::failover, index_of(store_.group.nodes[0].id), true);
    }
    if (now_ > heal_deadline_) {
      const std::string said = explanations();
      fail("L1: " + why + (said.empty() ? "; and nobody says why" : ";" + said));
    }
    return;
  }
  if (healthy_since_ < 0) healthy_since_ = now_;
  if (now_ - healthy_since_ < 1000) return;
  if (rounds_ >= 2 || plan_.quiet || seed_ % 2 == 0) {
    if (seed_ % 4 == 2 && lasting_faults_ == 0) return begin_lasting_fault();
    finished_ = true;
    return;
  }
  kill_again();
}

// The standby is out of the names by now; the primary goes as well, and those who are left take over by themselves.
void World::after_the_standby() {
  if (now_ < second_at_) return;
  Keeper& k = keeper_of(second_victim_);
  if (k.alive) {
    if (store_.group.names.size() > 1) return fail("L6: the loss of a standby is not digested");
    crash(second_victim_);
    kill_keeper(second_victim_);
    second_at_ = now_ + 30000 + 2 * plan_.slow + longer();
    return;
  }
  const NodeView* primary = fsm::writer(store_.group);
  if (primary == nullptr || index_of(primary->id) == second_victim_ || !primary->converged()) {
    return fail("L1: nobody takes over after one loss and then another:" + explanations());
  }
  second_victim_ = 0;
}

// Where the monitor's memory of a choice by force is lost, the group may go on without who was chosen. What that one
// has written is not replaced; its operator does as he is told.
void World::empty_what_is_refused() {
  if (forgotten_.empty()) return;
  for (const NodeView& node : store_.group.nodes) {
    const int index = index_of(node.id);
    Postgres& p = pg(index);
    const Keeper& k = keeper_of(index);
    const bool refused = k.alive && k.core->reason().find("empty its PGDATA") != std::string::npos;
    if (!refused || k.busy || p.running || !p.exists) continue;
    note("an operator empties PGDATA of node " + std::to_string(index));
    p = Postgres{};
    wake(index);
  }
}

// A standby hangs, and nobody ends that soon. When there are enough others, or none is required, commits go on.
void World::hang_standby() {
  const std::vector<NodeId>& members = store_.group.names.back().names.members;
  hung_ = index_of(members[static_cast<std::size_t>(random_.index(static_cast<int>(members.size())))]);
  note("HANG standby " + std::to_string(hung_));
  hung_judged_at_ = now_ + 15000 + 2 * plan_.slow + longer();
  pg(hung_).paused_until = now_ + 60000 + longer();
}

void World::beside_the_hung() {
  if (now_ < hung_judged_at_) return;
  if (fsm::in_any_list(store_.group, NodeId{hung_}) || now_ - last_ack_ > 3000) {
    return fail("L6: commits wait for a standby that hangs:" + explanations());
  }
  hung_ = 0;
  healthy_since_ = -1;
  heal_deadline_ = now_ + 60000 + takeover_limit + 2 * longer();
}

// The primary goes and stays away, and for some seconds the monitor hears nobody: its first news are that the standbys
// do not stream, and not why.
void World::kill_unheard(int primary) {
  note("KILL AGAIN the primary " + std::to_string(primary) + ", unheard");
  const Time until = now_ + random_.between(500, 6000);
  for (int node = 1; node <= nodes_; ++node) {
    for (Time* end : {&cut_[0][static_cast<std::size_t>(node)], &cut_[static_cast<std::size_t>(node)][0]}) {
      *end = std::max(*end, until);
    }
  }
  crash(primary);
  kill_keeper(primary);
  second_victim_ = primary;
  second_at_ = now_ + 45000 + 2 * plan_.slow + longer();
  at(now_ + 90000 + 3 * longer(), Kind::restart_keeper, primary);
  healthy_since_ = -1;
  heal_deadline_ = now_ + 90000 + takeover_limit + 4 * longer();
}

// A healthy group loses as many nodes as it may, at once, its primary among them.
void World::kill_again() {
  ++rounds_;
  const GroupSnapshot& group = store_.group;
  const NodeView* primary = fsm::writer(group);
  if (primary == nullptr || primary->goal != NodeState::primary) {
    finished_ = true;
    return;
  }
  const SyncNames& names = group.names.back().names;
  const auto protectors = std::count_if(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
    return &node != primary && node.replication_quorum && node.goal == NodeState::secondary;
  });
  if (seed_ % 16 == 7 && rounds_ == 1 && names.required > 0 && protectors > group.number_sync_standbys)
    return hang_standby();
  if (random_.chance(40) && protectors > std::max(1, group.number_sync_standbys) && names.required > 0) {
    // One after another: a standby, and when its loss has been digested the primary; both stay away.
    const int standby =
        index_of(names.members[static_cast<std::size_t>(random_.index(static_cast<int>(names.members.size())))]);
    note("KILL AGAIN standby " + std::to_string(standby) + ", later the primary " +
         std::to_string(index_of(primary->id)));
    crash(standby);
    kill_keeper(standby);
    second_victim_ = index_of(primary->id);
    second_at_ = now_ + 15000 + 2 * plan_.slow + longer();
    at(now_ + 90000 + 3 * longer(), Kind::restart_keeper, standby);
    at(now_ + 90000 + 3 * longer(), Kind::restart_keeper, second_victim_);
    healthy_since_ = -1;
    heal_deadline_ = now_ + 90000 + takeover_limit + 4 * longer();
    return;
  }
  const bool all_heard = std::all_of(group.nodes.begin(), group.nodes.end(),
                                     [](const NodeView& node) { return node.report_age < Millis{3000}; });
  const bool all_here = std::all_of(names.members.begin(), names.members.end(),
                                    [this](NodeId id) { return store_.group.find(id) != nullptr; });
  // Nothing of it is still on its way.
  const bool silent = !keeper_of(index_of(primary->id)).awaiting && now_ > noisy_until_ + 7000;
  if (seed_ % 8 == 3 && names.required > 0 && all_heard && all_here && silent)
    return kill_unheard(index_of(primary->id));
  if (seed_ % 16 == 5 && names.required > 1 && all_here) return part_and_kill(*primary);
  if (seed_ % 16 == 13 && !group.request) {
    operator_asks(RequestKind::failover, index_of(primary->id), false);
    at(now_ + random_.between(5, 1000), Kind::lose_successor, index_of(primary->id));
    healthy_since_ = now_ + 1000;  // nothing else before that
    return;
  }
  const int may_go = std::max(1, group.names.back().names.required);
  std::vector<int> victims{index_of(primary->id)};
  for (const NodeView& node : group.nodes) {
    if (static_cast<int>(victims.size()) < may_go && group.number_sync_standbys >= may_go && node.id != primary->id) {
      victims.push_back(index_of(node.id));
    }
  }
  const Time away = random_.between(1000, 15000);
  for (const int victim : victims) {
    note("KILL AGAIN node " + std::to_string(victim));
    crash(victim);
    kill_keeper(victim);
    at(now_ + away, Kind::restart_keeper, victim);
  }
  healthy_since_ = -1;
  heal_deadline_ = now_ + away + takeover_limit + longer();
}

}  // namespace pgvigil::simulation
