// The steps of the keeper's plans: how long they take, what they need, where they can be interrupted.
#include <algorithm>

#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

using keeper::Core;
using keeper::Step;

namespace {

constexpr Time session_limit = 2000;  // of a local SQL session

}  // namespace

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
    k.term = k.core->goal().term.value;
    if (k.term < k.told) {
      fail("I8: node " + std::to_string(node) + " begins a step of term " + std::to_string(k.term) +
           " and has promised " + std::to_string(k.told));
    }
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
      k.core->wrote_names(to_guc(p.names_on_disk));
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
      k.core->wrote_names(to_guc(p.names_on_disk));
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
    const auto refusal = k.core->no_start(p.standby_signal, p.copy_unfinished, local(node));
    if (!p.running && refusal) return step_failed(node, *refusal);
    if (!p.exists) return step_failed(node, "there is no cluster");
    if (p.running && p.stopping) {
      k.ready_at = now_ + 20;
      if (now_ - k.begun > 60000) step_failed(node, "PostgreSQL does not stop");
      return;
    }
    if (!p.running) {
      k.core->starting(to_guc(p.names_on_disk));
      begin_start(node);
    }
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
    k.core->wrote_names(to_guc(p.names_on_disk));
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
    if (const auto refusal = k.core->no_promotion(facts_of(p, branches_, now_), local(node)))
      return step_failed(node, *refusal);
    if (!p.in_recovery) return step_done(node);
    k.target = k.core->goal().promised_timeline.value;
    k.stage = 1;
    k.ready_at = std::max(now_, p.settles_at) + random_.between(5, 100 + plan_.slow / 4);
    return;
  }
  if (p.in_recovery && disk_full(node)) {  // it cannot write the history of its timeline
    crash(node);
    return step_failed(node, "no room is left");
  }
  if (p.in_recovery) promoted(node);
  save(node, k.core->promoted(facts_of(p, branches_, now_).timeline));
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
        branches_.system_identifier(p.branch),
        p.clean ? branches_.position(p.branch, p.flushed) : branches_.position(p.checkpoint_branch, p.checkpoint));
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
    if (p.branch >= 0) directory.system_identifier = branches_.system_identifier(p.branch);
    if (p.exists && !p.copy_unfinished) {
      if (p.answers(now_) && now_ < p.settles_at) return step_failed(node, "reads its WAL");
      if (p.answers(now_)) {
        const auto facts = facts_of(p, branches_, now_);
        directory.local.position = effective({facts.timeline, facts.lsn, facts.history});
      } else {
        // What has been copied has to recover to the end of the copy; else the WAL that is here is read to its end.
        directory.local.position = p.consistent > p.flushed ? branches_.position(p.consistent_branch, p.consistent)
                                                            : branches_.position(p.branch, p.flushed);
      }
    }
    keeper::UpstreamIdentity identity;
    identity.system_identifier = branches_.system_identifier(up.branch);
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
    save(node, core.copy_begins());
    p.copy_unfinished = p.exists = true;
    k.stage = 4;
    k.ready_at =
        now_ + (k.prepared.what == keeper::Preparation::rewind ? random_.between(50, 800) : random_.between(200, 4000));
    return;
  }
  if (disk_full(node)) return step_failed(node, "no room is left");
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

}  // namespace pgvigil::simulation
