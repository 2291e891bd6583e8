#include "tests/simulation/world.hpp"

#include <algorithm>
#include <cstdio>

namespace pgvigil::simulation {

World::World(std::uint64_t seed, bool trace, std::set<int> disabled, std::unique_ptr<Store> store)
    : seed_(seed),
      plan_(draw_plan(seed)),
      random_(seed),
      trace_(trace),
      disabled_(std::move(disabled)),
      own_store_(std::move(store)),
      store_(*own_store_) {}

void World::at(Time when, Kind kind, int node, int other, std::int64_t life) {
  Event& event = events_.push(when);
  event.kind = kind;
  event.node = node;
  event.other = other;
  event.life = life;
}

void World::note(const std::string& text) {
  if (trace_) std::printf("%7.3f  %s\n", static_cast<double>(now_) / 1000.0, text.c_str());
}

void World::fail(const std::string& what) {
  if (outcome_.violation.empty()) outcome_.violation = what;
  note("VIOLATION " + what);
  finished_ = true;
}

Time World::latency() {
  if (now_ >= noisy_until_) return random_.between(1, 2) + plan_.line;
  const Time delay = random_.between(1, 2 + jitter_) + plan_.line;
  return random_.chance(loss_) ? delay + random_.between(200, 600) : delay;  // sent again by TCP
}

Outcome World::run() {
  store_.group.formation = "default";
  store_.group.number_sync_standbys = plan_.number_sync_standbys;
  nodes_ = plan_.nodes;
  for (int node = 1; node < max_nodes; ++node) {
    keepers_[static_cast<std::size_t>(node)].rate = 1000 + static_cast<int>(random_.between(-plan_.drift, plan_.drift));
    keepers_[static_cast<std::size_t>(node)].offset = random_.between(0, 1000000);
  }
  set_timings(plan_.timings);
  if (plan_.timings_change > 0) at(plan_.timings_change, Kind::set_timings);
  at(0, Kind::register_node, 1);
  for (int node = 2; node <= nodes_; ++node) at(random_.between(1000, 2500), Kind::register_node, node);
  at(1, Kind::monitor_tick);
  at(8000, Kind::check);
  for (std::size_t i = 0; i < plan_.faults.size(); ++i) {
    if (!disabled_.contains(static_cast<int>(i)))
      at(plan_.faults[i].at, Kind::fault, 0, 0, static_cast<std::int64_t>(i));
  }
  std::uint64_t hash = 1469598103934665603u;
  const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 1099511628211u; };
  while (!events_.empty() && !finished_) {
    const Event event = events_.pop();
    now_ = std::max(now_, event.at);
    ++outcome_.events;
    mix(static_cast<std::uint64_t>(event.at) * 64 + static_cast<std::uint64_t>(event.kind));
    mix(static_cast<std::uint64_t>(event.node * 16 + event.other));
    handle(event);
  }
  mix(static_cast<std::uint64_t>(outcome_.acknowledged));
  outcome_.hash = hash;
  outcome_.ended = now_;
  return outcome_;
}

void World::handle(const Event& event) {
  const int node = event.node;
  Postgres& p = pg(node);
  Keeper& k = keeper_of(node);
  const bool same_life = event.life == p.life;
  switch (event.kind) {
    case Kind::keeper_tick:
      if (!k.alive || event.life != k.life || k.ticks_at != event.at) return;
      k.ticks_at = 0;
      if (now_ < k.paused_until) return wake(node);
      return tick(node);
    case Kind::link:
      if (!k.alive || event.life != k.life || k.link_at != event.at) return;
      k.link_at = 0;
      if (now_ < k.paused_until) return wake_link(node);
      return link(node);
    case Kind::report_arrives: return report_arrives(node, event.life);
    case Kind::answer_arrives:
      answer_arrives(node, event.life);
      // It ends when the monitor has heard that it has gone.
      if (k.alive && k.core->state().reported == NodeState::dropped && k.core->converged() &&
          store_.group.find(NodeId{node}) == nullptr) {
        k.gone = true;
        kill_keeper(node);
      }
      return;
    case Kind::session_closed:
      if (sessions_[static_cast<std::size_t>(node)].erase(static_cast<int>(event.life)) > 0) wake_monitor();
      return;
    case Kind::evaluate: return evaluate();
    case Kind::monitor_tick: return monitor_tick();
    case Kind::deliver: return deliver(node, event.life);
    case Kind::acknowledge: return acknowledge(node, event.other, event.life);
    case Kind::started:
      if (same_life && p.running) started(node);
      return;
    case Kind::stopped:
      if (same_life && p.stopping) try_stop(node);
      return;
    case Kind::reload:
      if (same_life && p.running) set_in_force(node);
      return;
    case Kind::checkpointer:
      if (same_life && p.running) {
        if (now_ < p.paused_until) return at(p.paused_until, Kind::checkpointer, node, 0, p.life);
        p.waits = !p.names.asynchronous();
        release(node);
      }
      return;
    case Kind::receiver:
      if (same_life && p.running && p.receiver_at == event.at) receiver(node);
      return;
    case Kind::write:
      if (same_life) write(node);
      return;
    case Kind::background_checkpoint:
      if (same_life && p.running) {
        p.checkpoint = p.flushed;
        p.checkpoint_branch = p.branch;
      }
      return;
    case Kind::fault: return inject(plan_.faults[static_cast<std::size_t>(event.life)]);
    case Kind::check: return check();
    case Kind::restart_keeper: return start_keeper(node);
    case Kind::lose_successor: return lose_successor(node);
    case Kind::lose_voter: return lose_voter(node);
    case Kind::ask_meanwhile: return ask_meanwhile();
    case Kind::set_timings: return set_timings(plan_.later_timings);
    case Kind::restart_monitor:
      monitor_alive_ = true;
      liveness_ = fsm::Liveness{};
      probes_ = {};
      return;
    case Kind::restart_database:
      database_up_ = true;
      liveness_.excuse_all(Millis{now_});
      return;
    case Kind::register_node: {
      const bool other = random_.chance(plan_.priorities);
      const int priority = node > 1 && other ? (random_.chance(50) ? 0 : 90) : 50;
      const bool quorum = !random_.chance(plan_.async_nodes);
      if (store_.group.nodes.empty()) first_branch_ = branches_.count();  // another system begins
      if (!database_up_ || !store_.add_node(NodeId{node}, priority, quorum)) {
        at(now_ + 1000, Kind::register_node, node);
        return;
      }
      k.priority = priority;
      k.quorum = quorum;
      keeper::KeeperState state;
      state.node = NodeId{node};
      k.disk = state;
      start_keeper(node);
      wake_monitor();
      for (int peer = 1; peer <= nodes_; ++peer) {
        if (keeper_of(peer).session != 0) {
          keeper_of(peer).wants_report = true;
          wake_link(peer, latency());
        }
      }
      return;
    }
  }
}

}  // namespace pgvigil::simulation
