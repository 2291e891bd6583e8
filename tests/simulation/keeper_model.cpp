// The keeper's process around keeper::Core: the loops of keeper/service, with models for what they touch.
#include <algorithm>
#include <utility>

#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

using keeper::Core;

namespace {

constexpr Time report_limit = 2000;

// One that has nothing to say is heard half as often as a real one.
Time heartbeat_of(const Timing& timing) {
  if (timing.unhealthy_after < Millis{3000}) return 300;
  return timing.unhealthy_after > Millis{3000} ? 2000 : 1000;
}

}  // namespace

keeper::Millis World::local(int node) const {
  const Keeper& k = keepers_[static_cast<std::size_t>(node)];
  return keeper::Millis{k.offset + now_ * k.rate / 1000};
}

void World::start_keeper(int node) {
  Keeper& k = keeper_of(node);
  if (k.alive || k.gone || !k.disk) return;
  ++k.life;
  k.alive = true;
  k.started_at = now_;
  k.core.emplace(*k.disk, pg(node).running, local(node));
  k.session = 0;
  k.awaiting = k.busy = k.settling = k.asked = false;
  k.confirming = 0;
  k.wants_report = true;
  k.ticks_at = k.link_at = 0;
  wake(node);
  wake_link(node);
}

void World::kill_keeper(int node) {
  Keeper& k = keeper_of(node);
  if (!k.alive) return;
  k.alive = false;
  ++k.life;
  close_session(node, true);
}

void World::wake(int node, Time delay) {
  Keeper& k = keeper_of(node);
  if (!k.alive) return;
  const Time when = std::max(now_ + delay, k.paused_until);
  if (k.ticks_at > now_ && k.ticks_at <= when) return;
  k.ticks_at = when;
  if (!k.ticking) at(when, Kind::keeper_tick, node, 0, k.life);
}

void World::wake_link(int node, Time delay) {
  Keeper& k = keeper_of(node);
  if (!k.alive) return;
  const Time when = std::max(now_ + delay, k.paused_until);
  if (k.link_at > now_ && k.link_at <= when) return;
  k.link_at = when;
  at(when, Kind::link, node, 0, k.life);
}

void World::save(int node, Core::Save save) {
  if (save == Core::Save::no) return;
  keeper_of(node).disk = keeper_of(node).core->state();
  // Nobody promotes by hand here.
  if (keeper_of(node).disk->foreign_promotion) {
    fail("node " + std::to_string(node) + " takes a promotion that was ordered for somebody else's");
  }
}

// A synchronous primary needs no monitor while enough of its standbys stream, and have done so for longer than it takes
// to see that the names are in force.
bool World::keeps_its_quorum(int node) {
  constexpr Time seen = 8000;
  const Postgres& p = pg(node);
  const Goal& goal = keeper_of(node).core->goal();
  if (!p.writable(now_) || !takes_writes(goal.state) || goal.names.asynchronous()) return false;
  if (p.names != goal.names || now_ - p.names_since < seen) return false;
  if (now_ - p.paused_until < seen || now_ - keeper_of(node).paused_until < seen) return false;
  const auto streaming = std::count_if(goal.names.members.begin(), goal.names.members.end(), [&](NodeId member) {
    const auto from = static_cast<std::size_t>(node);
    const auto to = static_cast<std::size_t>(index_of(member));
    const Sender& sender = p.senders[to];
    const bool undisturbed = now_ - sender.since >= seen && now_ - std::max(cut_[from][to], cut_[to][from]) >= seen &&
                             now_ - noisy_until_ >= seen && now_ - pg(index_of(member)).paused_until >= seen;
    return sender.attached && undisturbed && sender.flush + 1 >= p.flushed;
  });
  return streaming >= goal.names.required;
}

// The keeper looks. The earliest of the times at which it wants to look again is put among the events, once.
void World::tick(int node) {
  Keeper& k = keeper_of(node);
  k.ticking = true;
  look(node);
  k.ticking = false;
  if (k.alive && k.ticks_at != 0) at(k.ticks_at, Kind::keeper_tick, node, 0, k.life);
}

void World::look(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  Core& core = *k.core;
  if (!p.running) {
    if (core.saw_process(false, local(node))) k.wants_report = true;
  } else {
    if (core.saw_process(true, local(node))) k.wants_report = true;
    if (p.answers(now_)) {
      look_at(p, branches_, now_, k.facts);
      const Core::Seen seen = core.saw(k.facts, local(node));
      save(node, seen.save);
      if (seen.news) k.wants_report = true;
    } else if (core.saw_silence(local(node))) {
      k.wants_report = true;
    }
  }
  if (core.saw_disk(disk_full(node))) k.wants_report = true;
  if (p.running) {
    if (const auto why = core.must_fence(local(node))) {
      note("node " + std::to_string(node) + " fences itself: " + *why);
      if (keeps_its_quorum(node)) fail("L5: node " + std::to_string(node) + " stops, and its quorum streams from it");
      core.fenced(*why, local(node));
      crash(node);
    }
  }
  confirm(node);
  if (now_ >= k.looks_up_at) look_up(node);
  look_for_standbys(node);
  reconcile(node);
  if (!k.alive) return;
  if (k.wants_report && !k.awaiting) wake_link(node);
  if (k.busy) {
    wake(node, std::max<Time>(1, std::min<Time>(k.ready_at - now_, 100)));
  } else if (k.confirming > 0 || core.names_are_due()) {
    wake(node, 20);
  } else {
    wake(node, core.urgent() ? 30 : std::min<Time>(500, k.heartbeat));
  }
}

void World::look_up(int node) {
  Keeper& k = keeper_of(node);
  k.looks_up_at = now_ + 500;
  UpstreamSight sight = UpstreamSight::unknown;
  const Peer* peer = runs_as_standby(k.core->state().reported) ? k.core->upstream() : nullptr;
  if (peer != nullptr) {
    const int up = index_of(peer->id);
    const Postgres& other = pg(up);
    sight = UpstreamSight::silent;
    if (both_ways(node, up)) {
      if (other.answers(now_)) sight = UpstreamSight::ok;
      if (!other.running) sight = UpstreamSight::refused;
    }
  }
  if (k.core->saw_upstream(sight)) k.wants_report = true;
}

void World::look_for_standbys(int node) {
  Core& core = *keeper_of(node).core;
  if (!core.asks_for_standbys(local(node))) return;
  for (const NodeId member : core.goal().names.members) {
    const int other = index_of(member);
    const Postgres& standby = pg(other);
    if (!both_ways(node, other) || !standby.answers(now_) || standby.branch < 0) continue;
    if (!core.found_standby(Timeline{branches_.at(standby.branch).number}, local(node))) continue;
    note("node " + std::to_string(node) + " finds standby " + std::to_string(other));
    return;
  }
}

// --- the link to the monitor

void World::close_session(int node, bool by_process) {
  Keeper& k = keeper_of(node);
  if (k.session == 0) return;
  // A closed socket is news at once, unless nothing gets through: then keepalives find out.
  const Time when = usable(node, 0) ? now_ + latency() : now_ + random_.between(5000, 15000);
  at(when, Kind::session_closed, node, 0, k.session);
  k.session = 0;
  k.awaiting = false;
  if (by_process) k.link_at = 0;
}

void World::link(int node) {
  Keeper& k = keeper_of(node);
  if (k.session == 0) {
    if (!both_ways(node, 0) || !database_up_) {
      wake_link(node, usable(node, 0) ? random_.between(100, 1000) : 2000);
      return;
    }
    k.session = ++k.last_session;
    sessions_[static_cast<std::size_t>(node)].insert(k.session);
    k.wants_report = true;
    wake_monitor();
  }
  if (k.awaiting) {
    if (now_ - k.sent < report_limit) {
      wake_link(node, report_limit - (now_ - k.sent));
      return;
    }
    close_session(node, false);
    wake_link(node, random_.between(50, 1000));
    return;
  }
  if (k.wants_report || now_ >= k.heartbeat_at) send_report(node);
  wake_link(node, k.awaiting ? report_limit : std::max<Time>(1, k.heartbeat_at - now_));
}

void World::send_report(int node) {
  Keeper& k = keeper_of(node);
  const std::size_t index = new_message();
  Message& message = messages_[index];
  message.report = k.core->report(local(node));
  k.told = std::max(k.told, message.report.term.value);
  if (std::exchange(k.asked, false)) message.account = k.core->account(pg(node).copy_unfinished);
  message.session = k.session;
  message.database = databases_;
  message.sent_local = local(node).count();
  k.awaiting = true;
  k.sent = now_;
  k.wants_report = false;
  k.heartbeat_at = now_ + k.heartbeat;
  // What was sent before a cut may still arrive after it, later than what a newer session says.
  Time when = std::max(now_, cut_[static_cast<std::size_t>(node)][0]) + latency();
  if (now_ < noisy_until_ && random_.chance(3)) when += random_.between(1000, 6000);  // a backend that was held up
  if (when < now_ + 15000) {
    at(when, Kind::report_arrives, node, 0, static_cast<std::int64_t>(index));
  } else {
    free_messages_.push_back(index);
  }
}

// A place in messages_ that nobody uses any more, or another one.
std::size_t World::new_message() {
  if (free_messages_.empty()) {
    messages_.emplace_back();
    return messages_.size() - 1;
  }
  const std::size_t index = free_messages_.back();
  free_messages_.pop_back();
  messages_[index].account.reset();
  return index;
}

void World::report_arrives(int node, std::int64_t index) {
  if (database_up_ && answered(node, messages_[static_cast<std::size_t>(index)]) && usable(0, node)) {
    at(now_ + latency(), Kind::answer_arrives, node, 0, index);
  } else {
    free_messages_.push_back(static_cast<std::size_t>(index));
  }
}

// What the monitor makes of a report. False: there is no answer.
bool World::answered(int node, Message& message) {
  if (message.database != databases_) return false;  // its backend is gone with the server
  Keeper& k = keeper_of(node);
  if (k.session == message.session && !sessions_[static_cast<std::size_t>(node)].contains(k.session)) {
    // The server that it was with ended behind a cut: the new one knows no such session, and says so.
    if (!usable(0, node)) return false;
    k.session = 0;
    k.awaiting = false;
    wake_link(node, latency());
    return false;
  }
  const Store::Reported reported = message.account ? store_.tell(message.report.node, k.priority, k.quorum,
                                                                 k.core->state().system_identifier, *message.account)
                                                   : store_.report(message.report);
  message.answer = reported.answer;
  message.goal = reported.goal;
  if (reported.news) wake_monitor();
  return true;
}

void World::answer_arrives(int node, std::int64_t index) {
  const Keeper& k = keeper_of(node);
  const Message& message = messages_[static_cast<std::size_t>(index)];
  const bool awaited = k.alive && k.session == message.session && k.awaiting;
  if (awaited && now_ < k.paused_until) {
    at(k.paused_until, Kind::answer_arrives, node, 0, index);
    return;
  }
  if (awaited) heard(node, message);
  free_messages_.push_back(static_cast<std::size_t>(index));
}

void World::heard(int node, const Message& message) {
  Keeper& k = keeper_of(node);
  k.awaiting = false;
  if (message.answer == Store::Answer::refused) {
    close_session(node, false);
    wake_link(node, random_.between(100, 1000));
    return;
  }
  if (asked_for_account(node, message.answer)) return;
  k.heartbeat = heartbeat_of(store_.group.timing);
  if (plan_.late > 0) k.heartbeat = store_.group.timing.unhealthy_after.count() * plan_.late / 100;
  if (plan_.punctual) wake_link(node, std::max<Time>(1, k.heartbeat_at - now_));
  const Goal& held = k.core->goal();
  if (message.goal.term == held.term && message.goal.seq == held.seq && message.goal.state != held.state) {
    fail("I9: node " + std::to_string(node) + " is given two orders of term " + std::to_string(held.term.value) +
         ", number " + std::to_string(held.seq) + ": " + std::string(to_string(held.state)) + " and " +
         std::string(to_string(message.goal.state)));
  }
  save(node, k.core->answered(message.goal, keeper::Millis{message.sent_local}, local(node)));
  const bool other_members = message.goal.peers_version != k.core->state().peers_version;
  if (other_members && k.core->goal().state != NodeState::dropped && message.database == databases_) {
    save(node, k.core->learned_peers(store_.peers_of(k.core->state().node), message.goal.peers_version));
  }
  if (k.wants_report) wake_link(node);
  wake(node);
}

// True: the answer holds no order.
bool World::asked_for_account(int node, Store::Answer answer) {
  Keeper& k = keeper_of(node);
  if (answer == Store::Answer::goal) return false;
  k.asked = k.wants_report = answer == Store::Answer::tell;
  wake_link(node, k.wants_report ? 1 : std::max<Time>(1, k.heartbeat_at - now_));
  wake(node);
  return true;
}

// --- names

void World::confirm(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (now_ < k.confirm_at) return;
  const Goal& goal = k.core->goal();
  if (!k.core->names_are_due() || !p.answers(now_) || p.in_recovery) {
    k.confirming = 0;
    return;
  }
  if (k.confirming > 0 && goal.names_version != k.wanted.version) k.confirming = 0;
  const auto holding = [&](std::uint64_t lsn) {
    int count = 0;
    for (const NodeId member : k.wanted.names.members) {
      const Sender& sender = p.senders[static_cast<std::size_t>(index_of(member))];
      if (sender.attached && sender.flush >= lsn) ++count;
    }
    return count;
  };
  if (k.confirming == 0) {
    if (p.names != goal.names) return;
    k.wanted = *k.core->names_to_confirm();
    if (k.wanted.names.asynchronous()) {
      if (k.core->names_confirmed(k.wanted.version)) k.wants_report = true;
      return;
    }
    if (holding(0) < k.wanted.names.required) return;
    k.confirming = 1;
    k.confirm_life = p.life;
    k.confirm_at = now_ + random_.between(2, 20 + plan_.slow);
    return;
  }
  if (k.confirm_life != p.life) {
    k.confirming = 0;
    return;
  }
  if (k.confirming == 1) {
    p.waits = true;  // the checkpointer has read its configuration before it took the CHECKPOINT
    p.checkpoint = p.flushed;
    p.checkpoint_branch = p.branch;
    k.position = p.flushed;
    k.confirming = 2;
    k.begun_confirming = now_;
  }
  if (holding(k.position) >= k.wanted.names.required) {
    k.confirming = 0;
    if (trace_) note("node " + std::to_string(node) + " confirms names " + to_guc(k.wanted.names));
    if (k.core->names_confirmed(k.wanted.version)) k.wants_report = true;
  } else if (now_ - k.begun_confirming > 2000) {
    k.confirming = 0;
  }
}

}  // namespace pgvigil::simulation
