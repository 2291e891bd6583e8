// The monitor process: liveness and decisions as in monitor/service, over the model of its database.
#include <algorithm>

#include "monitor/fsm/explain.hpp"
#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

void World::wake_monitor() {
  if (evaluation_due_) return;
  evaluation_due_ = true;
  at(now_ + random_.between(1, 3), Kind::evaluate);
}

ProbeResult World::probe(int node) {
  const Postgres& p = pg(node);
  if (!both_ways(0, node)) return ProbeResult::silent;
  if (!p.running) return ProbeResult::refused;
  if (now_ < p.paused_until) return ProbeResult::silent;
  return p.accepting ? ProbeResult::good : ProbeResult::rejected;
}

void World::evaluate() {
  evaluation_due_ = false;
  if (!monitor_alive_ || !database_up_) return;
  static thread_local std::vector<fsm::Heard> heard;
  heard.clear();
  for (const NodeView& node : store_.group.nodes) {
    heard.push_back(
        {node.id, store_.reports_of(node.id), !sessions_[static_cast<std::size_t>(index_of(node.id))].empty()});
  }
  const Millis now{now_};
  const fsm::Liveness::News news = liveness_.look(heard, now);
  const auto look = [&](int node) {
    fsm::ProbeView& view = probes_[static_cast<std::size_t>(node)];
    if (view.result == ProbeResult::unknown) view.last_good = now;
    view.result = probe(node);
    view.at = now;
    if (view.result == ProbeResult::good) view.last_good = now;
  };
  const Millis often = std::min(Millis{1000}, store_.group.timing.unhealthy_after / 3);
  for (const NodeId id : news.session_closed) look(index_of(id));
  for (const NodeView& node : store_.group.nodes) {
    const bool probed = node.reported != NodeState::init && node.reported != NodeState::wait_standby &&
                        node.reported != NodeState::dropped;
    const fsm::ProbeView& view = probes_[static_cast<std::size_t>(index_of(node.id))];
    const auto period = view.result == ProbeResult::good ? often : std::min(often, Millis{400});
    if (probed && (view.result == ProbeResult::unknown || now - view.at >= period)) look(index_of(node.id));
  }
  liveness_.fill_in(store_.group, now, [this](NodeId id) { return probes_[static_cast<std::size_t>(index_of(id))]; });
  if (store_.group.learning) store_.group.clock = now_;
  const auto decision = fsm::decide(store_.group);
  if (!decision) return;
  apply(*decision);
  wake_monitor();
}

void World::apply(const fsm::Decision& decision) {
  ++outcome_.decisions;
  outcome_.rules.insert(decision.rule);
  if (decision.description.empty())
    fail("I10: a decision without a description, rule " + std::to_string(decision.rule));
  if (trace_) {
    std::string text =
        "rule " + std::to_string(decision.rule) + " " + std::string(decision.rule_name) + ": " + decision.description;
    for (const fsm::GoalChange& change : decision.goals) {
      text += "; n" + std::to_string(change.node.value) + " -> " + std::string(to_string(change.goal));
    }
    note(text);
  }
  const GroupSnapshot& group = store_.group;
  if (decision.term && decision.term->value <= group.term.value) fail("I2: the term does not grow");
  if (decision.term) not_of_the_past(*decision.term);
  for (const fsm::GoalChange& change : decision.goals) {
    // Nobody is left who knows of a later one.
    if (decision.learned && removals_forgotten_ && takes_writes(change.goal)) {
      const auto term = branches_.at(pg(index_of(change.node)).branch).term;
      highest_promotion_ = std::min(highest_promotion_, term);
    }
    const NodeView* node = group.find(change.node);
    const bool named_now = group.request && group.request->node == change.node;
    if (node != nullptr && change.goal == NodeState::prepare_promotion && node->candidate_priority == 0 && !named_now) {
      fail("I6: a node of priority 0 is to take over");
    }
    const bool promotes = node != nullptr && takes_writes(change.goal) && !takes_writes(node->reported) &&
                          !being_demoted(node->reported) && node->reported != NodeState::init;
    if (!promotes) continue;
    const bool named = named_.contains(index_of(change.node)) || (group.request && group.request->node == change.node);
    if (node->candidate_priority == 0 && !named && decision.rule != 303 && decision.rule != 317 && !decision.learned)
      fail("I6: a node of priority 0 is promoted");
    if (node->reported == NodeState::maintenance) fail("I6: a node in maintenance is promoted");
    if (decision.rule != 317) continue;
    // An operator's choice: what this node does not have is given up.
    const Postgres& p = pg(index_of(change.node));
    for (std::size_t b = 0; b < acked_.size(); ++b) {
      if (acked_[b] > 0) {
        const auto kept = branches_.common(p.branch, p.flushed, static_cast<int>(b), acked_[b]);
        acked_[b] = std::min(acked_[b], kept);
      }
    }
    for (int b = 0; b < branches_.count(); ++b) chosen_by_force_.insert(b);
    forced_term_ = group.term.value;
  }
  if (decision.request == fsm::RequestOutcome::accepted && group.request &&
      group.request->kind == RequestKind::promotion && group.request->node) {
    named_.insert(index_of(*group.request->node));
  }
  if (decision.learned && group.request && group.request->allow_data_loss) learned_by_force_ = true;
  store_.apply(decision);
  int writers = 0;
  for (const NodeView& node : store_.group.nodes) writers += takes_writes(node.goal) ? 1 : 0;
  if (writers > 1) fail("I2: two nodes are to take writes");
  for (const NodeView& node : store_.group.nodes) {
    const int index = index_of(node.id);
    if (keeper_of(index).session == 0 || !usable(0, index)) continue;
    keeper_of(index).wants_report = true;  // NOTIFY
    wake_link(index, latency());
  }
}

// I9: what a monitor decides is not older than what any of its nodes has been told, also when it has lost its memory.
void World::not_of_the_past(Term term) {
  for (const NodeView& node : store_.group.nodes) {
    const Keeper& k = keeper_of(index_of(node.id));
    if (!k.disk || k.disk->term <= term) continue;
    fail("I9: a decision for term " + std::to_string(term.value) + ", and node " + std::to_string(node.id.value) +
         " has been told of term " + std::to_string(k.disk->term.value));
  }
}

void World::monitor_tick() {
  at(now_ + 500, Kind::monitor_tick);
  const bool restores = std::any_of(plan_.faults.begin(), plan_.faults.end(),
                                    [](const Fault& fault) { return fault.kind == FaultKind::restore_monitor; });
  if (restores && database_up_ && !store_.group.learning && now_ % 3000 < 500) backups_.push_back(store_);
  evaluate();
}

// What was chosen by force is known to nobody any more but to the one that was chosen.
void World::forget_choice() {
  highest_promotion_ = 0;
  for (int b = 0; b < branches_.count(); ++b) {
    const std::int64_t term = branches_.at(b).term;
    if (term >= forced_term_) {
      forgotten_.insert(b);
    } else {
      highest_promotion_ = std::max(highest_promotion_, term);
    }
  }
  for (auto& highest : acked_) highest = 0;
}

// An old backup of its database, or (a new monitor) none at all.
void World::restore_monitor(int value) {
  if (backups_.empty()) return;
  const auto age = static_cast<std::size_t>(value) % backups_.size();
  if (value < 25) {
    Store empty;
    empty.group.formation = store_.group.formation;
    empty.group.number_sync_standbys = store_.group.number_sync_standbys;
    store_.restore(empty);
  } else {
    store_.restore(backups_[age]);
  }
  backups_.clear();
  ++databases_;
  if (removed_by_force_) {  // who was removed, with what, only the lost memory knew
    removals_forgotten_ = true;
    for (auto& highest : acked_) highest = 0;
    for (int b = 0; b < branches_.count(); ++b) chosen_by_force_.insert(b);
  }
  if (store_.group.term.value < forced_term_) forget_choice();
  learning_since_ = now_;
  liveness_ = fsm::Liveness{};  // the numbers of reports and requests begin again
  for (auto& sessions : sessions_) sessions.clear();
  for (int node = 1; node <= nodes_; ++node) {
    Keeper& k = keeper_of(node);
    k.asked = false;
    if (k.session == 0 || !usable(0, node)) continue;
    k.session = 0;
    k.awaiting = false;
    wake_link(node, latency());
  }
}

// Nodes that were dropped after the backup was taken do not come back: their operator knows it.
void World::help_to_learn() {
  if (learning_since_ == 0 || now_ - learning_since_ < 15000) return;
  for (const NodeView& node : store_.group.nodes) {
    if (node.account || !keeper_of(index_of(node.id)).gone) continue;
    store_.remove_by_force(node.id);
    wake_monitor();
    return;
  }
}

void World::set_timings(Timings timings) {
  Timing& timing = store_.group.timing;
  switch (timings) {
    case Timings::fast:
      timing.unhealthy_after = timing.standby_lost_after = Millis{1200};
      timing.preferred_vote = Millis{500};
      return;
    case Timings::ordinary:
      timing.unhealthy_after = timing.standby_lost_after = Timing{}.unhealthy_after;
      timing.preferred_vote = Timing{}.preferred_vote;
      return;
    case Timings::wan:
      timing.unhealthy_after = timing.standby_lost_after = Millis{10000};
      timing.preferred_vote = Millis{3000};
      timing.lease = Millis{30000};  // and is never shortened
      return;
  }
}

void World::operator_asks(RequestKind kind, int node, bool allow) {
  if (!database_up_ || store_.group.find(NodeId{node}) == nullptr) return;
  const bool all = kind == RequestKind::failover;
  if (store_.ask(kind, all ? std::nullopt : std::optional(NodeId{node}), allow)) {
    if (trace_)
      note("an operator asks for " + std::string(to_string(kind)) + " " + std::to_string(node) +
           (allow ? " (allowed)" : ""));
    wake_monitor();
  }
}

// What the keeper of a primary does that is to be stopped. That it is stopped is a fault of its own.
void World::writer_steps_down() {
  if (!database_up_) return;
  for (const NodeView& node : store_.group.nodes) {
    if (!takes_writes(node.goal) || !store_.ask(RequestKind::failover, node.id, false)) continue;
    if (trace_) note("node " + std::to_string(node.id.value) + " asks for a successor");
    wake_monitor();
    return;
  }
}

}  // namespace pgvigil::simulation
