// The keeper's process around keeper::Core: the loops of keeper/service, with models for what they touch.
#include <algorithm>

#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

using keeper::Core;
using keeper::Step;

namespace {

constexpr Time report_limit = 2000;
constexpr Time heartbeat = 1000;
constexpr Time session_limit = 2000;  // of a local SQL session

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
  k.awaiting = k.busy = k.settling = false;
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
  at(when, Kind::keeper_tick, node, 0, k.life);
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
  if (save == Core::Save::yes) keeper_of(node).disk = keeper_of(node).core->state();
}

void World::tick(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  Core& core = *k.core;
  if (!p.running) {
    if (core.saw_process(false, local(node))) k.wants_report = true;
  } else {
    if (core.saw_process(true, local(node))) k.wants_report = true;
    if (p.answers(now_)) {
      const Core::Seen seen = core.saw(facts_of(p, branches_, now_), local(node));
      save(node, seen.save);
      if (seen.news) k.wants_report = true;
    } else if (core.saw_silence(local(node))) {
      k.wants_report = true;
    }
  }
  if (p.running) {
    if (const auto why = core.must_fence(local(node))) {
      note("node " + std::to_string(node) + " fences itself: " + *why);
      core.fenced(*why);
      crash(node);
    }
  }
  confirm(node);
  if (now_ >= k.looks_up_at) look_up(node);
  reconcile(node);
  if (!k.alive) return;
  if (k.wants_report && !k.awaiting) wake_link(node);
  if (k.busy) {
    wake(node, std::max<Time>(1, std::min<Time>(k.ready_at - now_, 100)));
  } else if (k.confirming > 0 || core.names_to_confirm()) {
    wake(node, 20);
  } else {
    wake(node, core.urgent() ? 30 : 500);
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
  Message message;
  message.report = k.core->report(local(node));
  message.session = k.session;
  message.sent_local = local(node).count();
  messages_.push_back(std::move(message));
  k.awaiting = true;
  k.sent = now_;
  k.wants_report = false;
  k.heartbeat_at = now_ + heartbeat;
  // What was sent before a cut may still arrive after it, later than what a newer session says.
  Time when = std::max(now_, cut_[static_cast<std::size_t>(node)][0]) + latency();
  if (now_ < noisy_until_ && random_.chance(3)) when += random_.between(1000, 6000);  // a backend that was held up
  if (when < now_ + 15000) at(when, Kind::report_arrives, node, 0, static_cast<std::int64_t>(messages_.size()) - 1);
}

void World::report_arrives(int node, std::int64_t index) {
  if (!database_up_) return;
  Message& message = messages_[static_cast<std::size_t>(index)];
  const Store::Reported reported = store_.report(message.report);
  message.answered = reported.answer == Store::Answer::goal;
  message.goal = reported.goal;
  if (reported.news) wake_monitor();
  if (usable(0, node)) at(now_ + latency(), Kind::answer_arrives, node, 0, index);
}

void World::answer_arrives(int node, std::int64_t index) {
  Keeper& k = keeper_of(node);
  const Message& message = messages_[static_cast<std::size_t>(index)];
  if (!k.alive || k.session != message.session || !k.awaiting) return;
  if (now_ < k.paused_until) {
    at(k.paused_until, Kind::answer_arrives, node, 0, index);
    return;
  }
  k.awaiting = false;
  if (!message.answered) {
    close_session(node, false);
    wake_link(node, random_.between(100, 1000));
    return;
  }
  save(node, k.core->answered(message.goal, keeper::Millis{message.sent_local}, local(node)));
  if (message.goal.peers_version != k.core->state().peers_version && k.core->goal().state != NodeState::dropped) {
    save(node, k.core->learned_peers(store_.peers_of(k.core->state().node), message.goal.peers_version));
  }
  if (k.wants_report) wake_link(node);
  wake(node);
}

// --- steps

void World::reconcile(int node) {
  Keeper& k = keeper_of(node);
  for (int i = 0; i < 30 && k.alive; ++i) {
    if (k.busy) {
      if (now_ < k.ready_at) return;
      work_on_step(node);
      if (k.busy) return;
      continue;
    }
    const Core::Work work = k.core->next(local(node));
    if (work.kind == Core::Work::Kind::nothing) {
      wake(node, std::max<Time>(1, work.again.count()));
      return;
    }
    k.busy = true;
    k.settling = work.kind == Core::Work::Kind::settle;
    k.step = work.step;
    k.stage = 0;
    k.begun = k.ready_at = now_;
    k.order = k.core->goal().seq;
    k.term = k.core->state().term.value;
    if (trace_ && !k.settling) note("node " + std::to_string(node) + " step " + std::string(to_string(k.step)));
  }
}

void World::step_done(int node) {
  keeper_of(node).busy = false;
  keeper_of(node).core->done();
}

void World::step_failed(int node, const std::string& why) {
  Keeper& k = keeper_of(node);
  k.busy = false;
  if (trace_ && k.core->reason() != why) note("node " + std::to_string(node) + " fails: " + why);
  k.core->failed(why, local(node));
  k.wants_report = true;
}

void World::work_on_step(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (k.settling) {
    settle(node);
    return;
  }
  const auto take = [&](Time low, Time high) {
    k.stage = 1;
    k.ready_at = now_ + random_.between(low, high);
  };
  // Steps that need an answer from PostgreSQL.
  const bool asks = k.step == Step::create_roles || k.step == Step::checkpoint || k.step == Step::promote ||
                    k.step == Step::fetch || (k.step == Step::arm && k.core->must_arm());
  if (asks && !p.answers(now_)) {
    if (k.step == Step::checkpoint && !p.running) {
      step_done(node);
    } else if (!p.running || now_ - k.begun > session_limit) {
      step_failed(node, "PostgreSQL does not answer");
    } else {
      k.ready_at = now_ + 100;
    }
    return;
  }
  switch (k.step) {
    case Step::create_cluster:
      if (p.exists) return step_done(node);
      if (k.stage == 0) return take(200, 900);
      p = Postgres{};
      p.exists = p.clean = true;
      p.branch = branches_.root();
      p.checkpoint_branch = p.branch;
      branches_.at(p.branch).term = k.core->state().term.value;
      acked_.resize(static_cast<std::size_t>(p.branch) + 1);
      return step_done(node);
    case Step::configure_primary:
      p.names_on_disk = k.core->goal().names;
      k.core->wrote_names(!p.names_on_disk.asynchronous());
      p.upstream_on_disk = 0;
      if (p.running) reload(node);
      return step_done(node);
    case Step::keep_running:
      if (p.copy_unfinished || !p.standby_signal) return step_done(node);
      if (now_ - k.begun > 5000) return step_done(node);  // it may need WAL that only the next upstream has
      return step_start(node);
    case Step::start: return step_start(node);
    case Step::create_roles:
      if (p.in_recovery) return step_failed(node, "cannot create roles in recovery");
      return k.stage == 0 ? take(1, 20) : step_done(node);
    case Step::checkpoint:
      if (k.stage == 0) return take(5, 50 + plan_.slow);
      p.checkpoint = p.flushed;
      p.checkpoint_branch = p.branch;
      return step_done(node);
    case Step::arm:
      if (!k.core->must_arm()) return step_done(node);
      if (k.stage == 0) return take(5, 50 + plan_.slow);
      p.waits = !p.names_on_disk.asynchronous();
      k.core->armed();
      return step_done(node);
    case Step::stop: return step_stop(node);
    case Step::prepare_standby: return step_prepare(node);
    case Step::configure_standby: {
      const Core& core = *k.core;
      if (core.pg_running() && core.pg_answering() && !core.facts().in_recovery) {
        return step_failed(node, "runs as a primary");
      }
      const Peer* from = core.upstream();
      const bool keep = from == nullptr && core.goal().state != NodeState::catchingup;
      p.standby_signal = true;
      p.names_on_disk = runs_as_standby(core.goal().state) ? core.goal().names : SyncNames{};
      k.core->wrote_names(!p.names_on_disk.asynchronous());
      if (!keep) p.upstream_on_disk = from == nullptr ? 0 : index_of(from->id);
      if (p.running) reload(node);
      return step_done(node);
    }
    case Step::cut_off: return step_cut_off(node);
    case Step::fetch: return step_fetch(node);
    case Step::release:
      if (!p.running && p.exists) {
        p.standby_signal = true;
        p.upstream_on_disk = 0;
        p.names_on_disk = SyncNames{};
      }
      return step_done(node);
    case Step::promote: return step_promote(node);
    case Step::secure_timeline:
      at(now_ + random_.between(50, 1000 + plan_.slow), Kind::background_checkpoint, node, 0, p.life);
      return step_done(node);
  }
}

void World::step_start(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (k.stage == 0) {
    if (const auto refusal = k.core->no_start(p.standby_signal, p.copy_unfinished, local(node))) {
      return step_failed(node, *refusal);
    }
    if (!p.exists) return step_failed(node, "there is no cluster");
    if (p.running && p.stopping) {
      k.ready_at = now_ + 20;
      if (now_ - k.begun > 60000) step_failed(node, "PostgreSQL does not stop");
      return;
    }
    if (!p.running) begin_start(node);
    k.stage = 1;
  }
  if (!p.running)
    return k.step == Step::keep_running ? step_done(node) : step_failed(node, "PostgreSQL has not started");
  if (p.accepting && now_ >= p.paused_until) {
    k.core->started(p.standby_signal, !p.names_on_disk.asynchronous(), local(node));
    return step_done(node);
  }
  if (now_ - k.begun > 60000) return step_failed(node, "PostgreSQL has not started in time");
  k.ready_at = now_ + 20;
}

void World::step_stop(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (!p.running) {
    k.core->saw_process(false, local(node));
    return step_done(node);
  }
  if (!p.stopping) begin_stop(node);
  if (now_ - k.begun > 60000) crash(node);
  k.ready_at = now_ + 10;
}

void World::step_cut_off(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (k.stage == 0) {
    if (const auto refusal = k.core->no_vote()) return step_failed(node, *refusal);
    k.stage = k.core->pg_running() && k.core->pg_answering() && !k.core->facts().in_recovery ? 1 : 2;
  }
  if (k.stage == 1) {
    if (p.running) {
      if (!p.stopping) begin_stop(node);
      k.ready_at = now_ + 10;
      return;
    }
    k.core->saw_process(false, local(node));
    k.stage = 2;
  }
  if (k.stage == 2) {
    if (p.running && p.accepting && !p.in_recovery) return step_failed(node, "runs as a primary");
    p.standby_signal = true;
    p.upstream_on_disk = 0;
    p.names_on_disk = runs_as_standby(k.core->goal().state) ? k.core->goal().names : SyncNames{};
    k.core->wrote_names(!p.names_on_disk.asynchronous());
    if (p.running) reload(node);
    k.stage = 3;
    k.begun = now_;
  }
  if (!p.running) return step_done(node);
  if (p.answers(now_) && p.receiving_from == 0 && p.upstream == 0) return step_done(node);
  if (now_ - k.begun > 5000) return step_failed(node, "the walreceiver has not ended");
  k.ready_at = now_ + 5;
}

void World::step_fetch(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (k.stage == 0) {
    const Peer* from = k.core->upstream();
    if (from == nullptr) return step_failed(node, "no upstream");
    k.source = index_of(from->id);
    if (!both_ways(node, k.source) || !pg(k.source).answers(now_)) return step_failed(node, "the source is not there");
    k.target = pg(k.source).flushed;
    k.stage = 1;
  }
  if (p.in_recovery && p.flushed >= k.target && now_ >= p.settles_at) return step_done(node);
  if (now_ - k.begun > 10000) return step_failed(node, "fetches");
  k.ready_at = now_ + 20;
}

void World::step_promote(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (k.stage == 0) {
    if (const auto refusal = k.core->no_promotion(local(node))) return step_failed(node, *refusal);
    if (!p.in_recovery) return step_done(node);
    k.target = k.core->goal().promised_timeline.value;
    k.stage = 1;
    k.ready_at = std::max(now_, p.settles_at) + random_.between(5, 100 + plan_.slow / 4);
    return;
  }
  if (p.in_recovery) promoted(node);
  step_done(node);
}

void World::settle(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  Core& core = *k.core;
  std::optional<Lsn> end;
  if (k.stage == 0) {
    k.stage = 1;
    k.ready_at = now_ + random_.between(1, 10);  // questions take their time, and orders arrive meanwhile
    return;
  }
  if (p.running) {
    if (!p.answers(now_)) {
      if (now_ - k.begun > session_limit) return step_failed(node, "PostgreSQL does not answer");
      k.ready_at = now_ + 100;
      return;
    }
    const keeper::LocalFacts facts = facts_of(p, branches_, now_);
    const bool vote = core.goal().state == NodeState::report_lsn || core.goal().state == NodeState::stop_replication;
    if (vote && !facts.settled) {
      if (now_ - k.begun > 10000) return step_failed(node, "reads its WAL");
      k.ready_at = now_ + 20;
      return;
    }
    save(node, core.saw(facts, local(node)).save);
  } else if (p.exists && !p.copy_unfinished) {
    // The control file of a crashed server names the last checkpoint.
    core.refresh_stopped(
        "7", p.clean ? branches_.position(p.branch, p.flushed) : branches_.position(p.checkpoint_branch, p.checkpoint));
    if (p.clean) end = Lsn{p.flushed};
  }
  k.busy = false;
  const NodeState before = core.state().reported;
  save(node, core.settled(end, local(node)));
  k.wants_report = true;
  if (trace_ && core.state().reported != before) {
    note("node " + std::to_string(node) + " is " + std::string(to_string(core.state().reported)));
  }
}

void World::step_prepare(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  Core& core = *k.core;
  if (core.goal().seq != k.order) return step_done(node);  // superseded
  if (k.stage == 0) {
    const Peer* from = core.upstream();
    if (from == nullptr) return step_failed(node, "waiting for a primary to stream from");
    k.source = index_of(from->id);
    if (core.pg_running() && core.pg_answering() && !core.facts().in_recovery) {
      if (!p.stopping && p.running) begin_stop(node);
      k.stage = 1;
    } else {
      k.stage = 2;
    }
  }
  if (k.stage == 1) {
    if (p.running) {
      k.ready_at = now_ + 10;
      return;
    }
    core.saw_process(false, local(node));
    k.stage = 2;
  }
  const Postgres& up = pg(k.source);
  if (!both_ways(node, k.source) || !up.answers(now_)) return step_failed(node, "the upstream is not there");
  if (k.stage == 2) {
    keeper::DataDirectory directory;
    directory.has_cluster = p.exists;
    directory.empty = !p.exists;
    directory.copy_unfinished = p.copy_unfinished;
    directory.foreign_promotion = core.state().foreign_promotion;
    directory.system_identifier = "7";
    if (p.exists && !p.copy_unfinished) {
      if (p.answers(now_) && now_ < p.settles_at) return step_failed(node, "reads its WAL");
      const bool exact = p.answers(now_) || (p.clean && p.consistent <= p.flushed);
      directory.local.exact = exact;
      if (p.answers(now_)) {
        const auto facts = facts_of(p, branches_, now_);
        directory.local.position = effective({facts.timeline, facts.lsn, facts.history});
      } else {
        // The control file: a clean end, or the least that has to be replayed.
        directory.local.position = p.consistent > p.flushed ? branches_.position(p.consistent_branch, p.consistent)
                                   : p.clean                ? branches_.position(p.branch, p.flushed)
                                                            : branches_.position(p.checkpoint_branch, p.checkpoint);
      }
    }
    keeper::UpstreamIdentity identity;
    identity.system_identifier = "7";
    identity.position = branches_.position(up.branch, up.flushed);
    k.prepared = choose_preparation(directory, identity, "upstream");
    if (k.prepared.what == keeper::Preparation::none) return step_done(node);
    if (k.prepared.what == keeper::Preparation::refuse) return step_failed(node, k.prepared.why);
    if (k.prepared.what == keeper::Preparation::rewind && up.checkpoint_branch != up.branch) {
      return step_failed(node, "the upstream has not finished its first checkpoint");
    }
    k.stage = 3;
  }
  if (k.stage == 3) {
    if (p.running) {
      if (!p.stopping) begin_stop(node);
      k.ready_at = now_ + 10;
      return;
    }
    destroy_check(node);
    p.copy_unfinished = p.exists = true;
    k.stage = 4;
    k.ready_at =
        now_ + (k.prepared.what == keeper::Preparation::rewind ? random_.between(50, 800) : random_.between(200, 4000));
    return;
  }
  // The copy is complete. It is consistent when it has replayed what the upstream had written meanwhile.
  const bool rewound = k.prepared.what == keeper::Preparation::rewind;
  const std::uint64_t fork = rewound ? branches_.common(p.branch, p.flushed, up.branch, up.flushed) : up.flushed;
  p.branch = up.branch;
  p.flushed = p.checkpoint = fork;
  // A rewind takes the files of the source: what it had on older branches of its own is gone.
  while (branches_.at(p.branch).parent >= 0 && p.flushed <= branches_.at(p.branch).fork)
    p.branch = branches_.at(p.branch).parent;
  p.checkpoint_branch = p.branch;
  p.consistent = up.flushed;
  p.consistent_branch = up.branch;
  p.copy_unfinished = false;
  p.clean = true;
  p.standby_signal = true;
  save(node, core.copied());
  step_done(node);
}

// --- names

void World::confirm(int node) {
  Keeper& k = keeper_of(node);
  Postgres& p = pg(node);
  if (now_ < k.confirm_at) return;
  const auto wanted = k.core->names_to_confirm();
  if (!wanted || !p.answers(now_) || p.in_recovery) {
    k.confirming = 0;
    return;
  }
  if (k.confirming > 0 && wanted->version != k.wanted.version) k.confirming = 0;
  const auto holding = [&](std::uint64_t lsn) {
    int count = 0;
    for (const NodeId member : k.wanted.names.members) {
      const Sender& sender = p.senders[static_cast<std::size_t>(index_of(member))];
      if (sender.attached && sender.flush >= lsn) ++count;
    }
    return count;
  };
  if (k.confirming == 0) {
    if (p.names != wanted->names) return;
    k.wanted = *wanted;
    if (wanted->names.asynchronous()) {
      if (k.core->names_confirmed(wanted->version)) k.wants_report = true;
      return;
    }
    if (holding(0) < wanted->names.required) return;
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
