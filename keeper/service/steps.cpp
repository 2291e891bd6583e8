// The steps of the plans, each idempotent.
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdio>
#include <utility>

#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "keeper/actions/wal_files.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

// A stopped PGDATA may have been exchanged, or written to: the only sign of a standby that ran as something else while
// this keeper was not there. (A base backup has its source's control file until its server has read backup_label.)
asio::awaitable<void> Keeper::check_identity() {
  if (instance_.postmaster() || !instance_.has_cluster() || copy_unfinished(node_)) co_return;
  const postgres::ControlData control = co_await instance_.control_data();
  if (const auto refusal = core_.not_ours(control.system_identifier)) {
    core_.refresh_stopped(control.system_identifier, WalPosition{});
    throw Error(*refusal);
  }
  if (!control.written() || std::filesystem::exists(instance_.settings().pgdata / "backup_label")) co_return;
  const Core::Save save = core_.saw_written(control.timeline);
  if (save == Core::Save::no) co_return;
  log::error("PostgreSQL was written to here by somebody else; this node has to be copied again");
  keep(save);
}

asio::awaitable<void> Keeper::carry_out(Step step) {
  // Most of it would hang with it, and this thread too: the monitor would hear nothing any more.
  const bool answers = !disk_.hung() && !files_.busy();
  if (!answers && step != Step::stop) throw Error("nothing can be done here until the disk answers");
  if (answers) co_await check_identity();
  if (!holds_state()) throw Error(state_file_.failure());
  switch (step) {
    case Step::create_cluster: co_await create_cluster(); co_return;
    case Step::configure_primary: co_await configure_primary(); co_return;
    case Step::keep_running: co_await keep_running(); co_return;
    case Step::start: co_await start(); co_return;
    case Step::create_roles: co_await roles_and_slots(); co_return;
    case Step::stop: co_await stop_as_ordered(); co_return;
    case Step::configure_standby: co_await configure_standby(true); co_return;
    case Step::cut_off: co_await cut_off(); co_return;
    case Step::fetch: co_await fetch(); co_return;
    case Step::release: release(); co_return;
    case Step::secure_timeline: asio::co_spawn(context_, background_checkpoint(), asio::detached); co_return;
    case Step::prepare_standby: co_await prepare(); co_return;
    case Step::checkpoint:
      if (core_.pg_running()) co_await checkpoint_unless_superseded();
      co_return;
    case Step::arm:
      if (!core_.must_arm()) co_return;
      co_await checkpoint_unless_superseded();
      core_.armed();
      co_return;
    case Step::promote: co_await promote(); co_return;
  }
}

// Ends `work` when PostgreSQL is to be stopped, or another order has come, or the same with another node to follow (the
// one that was to be followed may hang, and what waits for it would wait for ever). False: it was not done.
// `irrevocable`: from when on no order ends it.
asio::awaitable<bool> Keeper::unless_superseded(asio::awaitable<void> work, const bool* irrevocable) {
  const auto seq = core_.goal().seq;
  const auto upstream = core_.goal().upstream;
  bool done = false;
  const auto begin = [&]() -> asio::awaitable<void> {
    co_await std::move(work);
    done = true;
  };
  const auto wanted = [&] {
    const Goal& goal = core_.goal();
    return goal.seq == seq && (!goal.upstream || goal.upstream == upstream);
  };
  const auto superseded = [&]() -> asio::awaitable<void> {
    const auto hopeless = [&] { return irrevocable != nullptr && larger_limits_due_; };
    while (!stopping_ && !hopeless() && (wanted() || (irrevocable != nullptr && *irrevocable))) {
      co_await os::sleep_for(pg::Millis{100});
    }
  };
  co_await os::race(begin(), superseded());
  co_return done;
}

// It may take as long as the disk takes for all of the memory.
asio::awaitable<void> Keeper::checkpoint_unless_superseded() {
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const bool done = co_await unless_superseded(checkpoint(local));
  if (!done) throw Error("a stop or another order has ended the wait for a checkpoint");
}

// Once it has been asked for it may happen at any time, whatever is ordered next: only a stop of PostgreSQL ends the
// waiting. The state file has named its timeline since the order came (Core::answered()).
asio::awaitable<void> Keeper::promote() {
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const LocalFacts seen = co_await look(local);
  if (!holds_state()) throw Error(state_file_.failure());  // the order may be a newer one by now
  if (const auto refusal = core_.no_promotion(seen, now())) throw Error(*refusal);
  const auto seq = core_.goal().seq;
  bool asked = false;
  const auto ask = [&] { return asked = core_.goal().seq == seq && !stopping_; };
  const bool done = co_await unless_superseded(
      keeper::promote(local, instance_.settings().pgdata, core_.goal().promised_timeline, ask), &asked);
  if (!done && larger_limits_due_) throw Error(replay_notice_);
  if (!done) throw Error(asked ? "stops before the promotion is seen to be done" : "another order has come");
  const LocalFacts promoted = co_await look(local);
  keep(core_.promoted(promoted.timeline));
}

// A standby runs on while its upstream is away. One that was rewound may need WAL that only the next upstream has, or
// none at all: then it waits no longer than this, and is looked at as it is.
asio::awaitable<void> Keeper::keep_running() {
  if (copy_unfinished(node_) || !postgres::has_standby_signal(instance_.settings().pgdata)) co_return;
  if (core_.state().foreign_promotion) co_return;  // what it would receive it would confirm, and could never replay
  if (const auto refusal = core_.no_start(true, false, now())) throw Error(*refusal);
  co_await stop_for_larger_limits();
  const auto postmaster = instance_.postmaster();
  if (postmaster && core_.pg_answering()) co_return;
  std::string failure;
  if (!postmaster) core_.starting(written_names());
  try {
    co_await start_server(true, pg::Millis{5000});
    started(true);
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (!failure.empty()) log::warn("goes on without its PostgreSQL: {}", failure);
}

asio::awaitable<void> Keeper::prepare() {
  const Peer* from = core_.upstream();
  if (from == nullptr) throw Error("waiting for a primary to stream from");
  const Peer source = *from;
  std::optional<LocalPosition> running;
  if (instance_.postmaster() && core_.pg_answering()) {
    // Asked now: a server that was started a moment ago has replayed more since it was last seen.
    pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
    const LocalFacts facts = co_await look(local);
    if (facts.in_recovery && !facts.settled) throw Error("reads the WAL that is here, at " + to_string(facts.lsn));
    if (facts.in_recovery) {
      running = LocalPosition{effective({facts.timeline, facts.lsn, facts.history}), true};
    } else {
      co_await stop_postgres(postgres::StopMode::fast);
    }
  }
  auto progress = [this](const std::string& line) {
    core_.progress(line);  // seen in `show state`
    if (::isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
      std::fflush(stderr);
    } else {
      log::debug("{}", line);
    }
  };
  const auto begins = [this] {
    keep(core_.copy_begins());
    if (!holds_state()) throw Error(state_file_.failure());
  };
  const auto ends = [this] {
    keep(core_.copied());
    if (!holds_state()) throw Error(state_file_.failure());
  };
  const auto seq = core_.goal().seq;
  Preparing preparing{source, running, core_.state().foreign_promotion, archive_patience_, progress, begins, ends};
  // A base backup may take hours. What was not finished will be begun anew by the next plan that needs it.
  const bool done = co_await unless_superseded(keeper::prepare_standby(node_, instance_, preparing));
  // By the same order the plan would go on as if that had been done.
  if (!done && !stopping_ && core_.goal().seq == seq) throw Error("follows another node than " + source.name + " now");
  if (preparing.fits && running) co_await free_from_stray_timeline(running->position, *preparing.fits);
}

// The startup process has gone over to a timeline that nobody goes on with: to that of a node that was chosen and died
// before it wrote anything, or to one reserved by such a node. It never comes back from there while it runs.
asio::awaitable<void> Keeper::free_from_stray_timeline(const WalPosition& local, const WalPosition& upstream) {
  if (!core_.converged() || local.lsn >= upstream.lsn || !stream_patience_.ends(local.lsn, now())) co_return;
  const auto stray = stray_histories(instance_.settings().pgdata / "pg_wal", local.timeline, upstream);
  if (stray.empty()) co_return;
  std::string names;
  for (const auto& file : stray) names += " " + file.filename().string();
  log::warn(
      "PostgreSQL is started again without{}: it receives nothing, for it has gone over to a timeline that its "
      "upstream does not know",
      names);
  co_await stop_postgres(postgres::StopMode::fast);
  keep(core_.copied());  // the timeline that was seen is none that WAL was received on
  if (!holds_state()) throw Error(state_file_.failure());
  for (const auto& file : stray) std::filesystem::remove(file);
}

// All that the upstream holds: it is cut off itself, so that what it says now is final.
asio::awaitable<void> Keeper::fetch() {
  const Peer* from = core_.upstream();
  if (from == nullptr) throw Error("waiting for the node that holds the missing WAL");
  const Peer source = *from;
  const UpstreamIdentity identity = co_await identify(node_, source);
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  for (int i = 0; i < 500; ++i) {
    const LocalFacts facts = co_await look(local);
    if (facts.in_recovery && facts.lsn >= identity.position.lsn) co_return;
    co_await os::sleep_for(pg::Millis{20});
  }
  throw Error("fetches WAL up to " + to_string(identity.position.lsn) + " from " + source.name);
}

// The operator may start it now, and gets a standby: never a second primary.
void Keeper::release() {
  if (core_.pg_running()) return;
  if (!instance_.has_cluster()) return;
  write_files(standby_settings(node_, nullptr, SyncNames{}), true);
}

asio::awaitable<void> Keeper::background_checkpoint() {
  std::string failure;
  try {
    pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
    co_await checkpoint(local);
  } catch (const std::exception& error) {
    failure = error.what();
  }
  // Not fatal: PostgreSQL makes its own checkpoint in time, and a rewind waits for it.
  if (!failure.empty()) log::warn("the checkpoint after the promotion failed: {}", failure);
}

void Keeper::write_files(postgres::Settings settings, bool standby) {
  core_.wrote_names(settings.at("synchronous_standby_names"));
  const bool encrypted = core_.state().sslmode != unencrypted;
  if (node_.config.ssl || encrypted) settings.merge(tls_settings(node_.config));
  // Whoever wrote before, another process of ours or a call that threw, may not have come as far as the signal.
  const bool due = std::exchange(reload_due_, true);
  const RoleFiles files{settings, core_.state().peers, encrypted, standby};
  const auto changed = std::make_shared<bool>(false);
  if (!files_.run(
          [node = node_, instance = instance_, files, changed] { *changed = write_role_files(node, instance, files); }))
    throw Error("PostgreSQL's settings are not written yet: the disk does not answer");
  if (due || *changed) instance_.reload();
  reload_due_ = false;
  written_ = std::move(settings);
}

asio::awaitable<void> Keeper::create_cluster() {
  if (instance_.has_cluster()) {
    if (postgres::has_standby_signal(instance_.settings().pgdata)) {
      throw Error("PGDATA is a standby of another system; promote it first, or use an empty directory");
    }
    co_return;
  }
  if (!instance_.directory_is_empty() && !instance_.initdb_unfinished())
    throw Error(node_.config.pgdata + " is not empty and holds no cluster; it is left alone: empty it");
  co_await instance_.initdb(node_.config.auth);
}

asio::awaitable<void> Keeper::configure_primary() {
  write_files(primary_settings(node_, core_.goal().names), false);
  co_return;
}

asio::awaitable<void> Keeper::configure_standby(bool with_upstream) {
  if (core_.pg_running() && core_.pg_answering() && !core_.facts().in_recovery) {
    throw Error("PostgreSQL runs as a primary here; it has to stop before it can follow another node");
  }
  // What somebody else's primary receives it confirms, and can never replay.
  const bool follows = with_upstream && !core_.state().foreign_promotion;
  const Peer* from = follows ? core_.upstream() : nullptr;
  // A secondary whose primary has just gone keeps what it has: the monitor decides whether to cut it off.
  const bool keep = follows && from == nullptr && core_.goal().state != NodeState::catchingup;
  // A writer's list is not a standby's: after a cut the next goal says what it is.
  const SyncNames names = runs_as_standby(core_.goal().state) ? core_.goal().names : SyncNames{};
  auto settings = standby_settings(node_, from, names);
  if (keep) {
    const auto present = postgres::read_settings(instance_.settings().pgdata);
    if (const auto conninfo = present.find("primary_conninfo"); conninfo != present.end()) {
      settings["primary_conninfo"] = conninfo->second;
    }
  }
  write_files(std::move(settings), true);
  // Who is to rest, or to go, does it without an upstream.
  const bool rests = core_.goal().state == NodeState::wait_maintenance;
  if (with_upstream && !follows && !rests) throw Error(core_.no_vote().value_or("it cannot follow"));
  co_return;
}

asio::awaitable<void> Keeper::stop_for_larger_limits() {
  const bool due = std::exchange(larger_limits_due_, false) && core_.facts().replay_paused;
  if (due && instance_.postmaster()) co_await stop_postgres(postgres::StopMode::fast);
}

// With larger limits than its files give it, as long as it runs, where its primary has had larger ones.
asio::awaitable<void> Keeper::start_server(bool as_standby, pg::Millis timeout) {
  const bool runs = instance_.postmaster().has_value();
  const bool expected = as_standby && limits_lack_ && !runs;
  postgres::Settings limits;
  if (expected) limits = co_await lacking_limits(instance_);
  std::exception_ptr failure;
  try {
    co_await instance_.start(timeout, limits);
  } catch (const UserError&) {
    failure = std::current_exception();
  }
  if (!failure) co_return;
  if (as_standby && !expected && !instance_.postmaster()) limits = co_await lacking_limits(instance_);
  if (limits.empty() || expected) std::rethrow_exception(failure);
  limits_lack_ = true;
  for (const auto& [name, value] : limits)
    log::warn("PostgreSQL is started with {} = {}, as its primary had", name, value);
  co_await instance_.start(timeout, limits);
}

asio::awaitable<void> Keeper::start() {
  const bool as_standby = postgres::has_standby_signal(instance_.settings().pgdata);
  if (as_standby) co_await stop_for_larger_limits();
  // One that runs is not started: it is the fence that says whether it may go on.
  if (!instance_.postmaster()) {
    if (const auto refusal = core_.no_start(as_standby, copy_unfinished(node_), now())) throw Error(*refusal);
    core_.starting(written_names());
  }
  // A rewound standby may wait for WAL that never comes: a new order ends the waiting, PostgreSQL goes on starting.
  const bool ready = co_await unless_superseded(start_server(as_standby, std::chrono::seconds{node_.config.start}));
  if (!ready) throw Error("another order has come while PostgreSQL was starting");
  started(as_standby);
}

std::string Keeper::written_names() const {
  const auto written = postgres::read_settings(instance_.settings().pgdata);
  const auto names = written.find("synchronous_standby_names");
  return names == written.end() ? std::string() : names->second;
}

void Keeper::started(bool as_standby) {
  core_.started(as_standby, !written_names().empty(), now());
}

asio::awaitable<void> Keeper::stop_postgres(postgres::StopMode mode) {
  std::chrono::seconds patience{node_.config.stop};
  if (disk_.hung()) {
    // Nobody in there will finish anything. Those that hang in the disk go when it answers; the others, and the port,
    // at once: their clients have to look elsewhere.
    instance_.kill();
    mode = postgres::StopMode::immediate;
    patience = std::chrono::seconds{5};
  }
  co_await instance_.stop(mode, patience);
  core_.saw_process(false, now());
}

// Writes wait for the end of a server that hands over, so it does not wait for who will find the next one by himself.
asio::awaitable<void> Keeper::stop_as_ordered() {
  const NodeState goal = core_.goal().state;
  const bool awaited = goal == NodeState::draining || goal == NodeState::prepare_maintenance;
  if (!awaited || !core_.pg_running() || disk_.hung()) {
    co_await stop_postgres(postgres::StopMode::fast);
    co_return;
  }
  std::vector<pid_t> expendable;
  std::string failure;
  try {
    pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
    const SyncNames names = core_.goal().names;
    expendable = co_await expendable_walsenders(local, names);
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (!failure.empty()) log::warn("stops without knowing who receives its WAL: {}", failure);
  co_await instance_.stop_for_successor(expendable, std::chrono::seconds{node_.config.stop});
  core_.saw_process(false, now());
}

// What stands in the way of a slot (somebody has taken all of them) must not stand in the way of a new primary:
// keep_slots() tries again.
asio::awaitable<void> Keeper::roles_and_slots() {
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  SlotCare care;
  care.peers = core_.state().peers;
  const NodeState before = core_.state().reported;
  co_await create_roles(local, node_, before == NodeState::init || before == NodeState::dropped);
  std::string failure;
  try {
    co_await maintain_slots(local, std::move(care));
  } catch (const pg::SqlError& error) {
    failure = error.what();
  }
  if (!failure.empty()) slots_failed(failure);
}

// The vote's first half (DESIGN: fence by quorum): nothing of the old primary may arrive after the LSN has been told.
asio::awaitable<void> Keeper::cut_off() {
  if (const auto refusal = core_.no_vote()) throw Error(*refusal);
  if (core_.pg_running() && core_.pg_answering() && !core_.facts().in_recovery)
    co_await stop_postgres(postgres::StopMode::fast);
  co_await configure_standby(false);
  if (!instance_.postmaster()) co_return;
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  for (int i = 0;; ++i) {
    const bool cut = co_await receives_no_more(local, instance_);
    if (cut) co_return;
    if (i % 100 == 99) instance_.reload();
    if (i % 200 == 199) co_await end_receiver(local);
    if (i >= 1000) throw Error("the walreceiver has not ended");
    co_await os::sleep_for(pg::Millis{5});
  }
}

asio::awaitable<LocalFacts> Keeper::look(pg::Connection& local) {
  const auto directory = instance_.settings().pgdata;
  const LocalFacts facts = co_await observe(local, pg::Millis{2000}, directory, core_.state().timeline);
  co_return facts;
}

// The end of WAL of a PostgreSQL that has stopped cleanly.
asio::awaitable<std::optional<Lsn>> Keeper::refresh_facts() {
  if (instance_.postmaster()) {
    pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
    LocalFacts facts = co_await look(local);
    const bool vote = core_.goal().state == NodeState::report_lsn || core_.goal().state == NodeState::stop_replication;
    // A vote tells all WAL that is here; after a restart it is still being read.
    for (int i = 0; vote && !facts.settled; ++i) {
      if (i >= 500) throw Error("reads the WAL that is here before it votes, at " + to_string(facts.lsn));
      co_await os::sleep_for(pg::Millis{20});
      facts = co_await look(local);
    }
    // One that was just being started when it was to be cut off may have read the settings of before.
    if (vote && (!facts.in_recovery || facts.has_receiver || !facts.conninfo_in_force.empty())) {
      instance_.reload();
      throw Error("PostgreSQL does not go by its settings yet: it is not cut off, and cannot vote");
    }
    keep(core_.saw(facts, now()).save);
    co_return std::nullopt;
  }
  if (!instance_.has_cluster() || copy_unfinished(node_)) co_return std::nullopt;
  const postgres::ControlData control = co_await instance_.control_data();
  WalPosition position;
  position.timeline = control.timeline;
  position.history = read_history(instance_.settings().pgdata / "pg_wal", control.timeline).value_or(History{});
  core_.refresh_stopped(control.system_identifier, position);
  // The shutdown checkpoint is the last record: who has a byte of it has everything before it.
  if (control.state != "shut down") co_return std::nullopt;
  co_return Lsn{control.checkpoint.value + 1};
}

}  // namespace pgvigil::keeper
