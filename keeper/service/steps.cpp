// The steps of the plans, each idempotent.
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdio>

#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

// A stopped PGDATA may have been exchanged.
asio::awaitable<void> Keeper::check_identity() {
  if (instance_.postmaster() || !instance_.has_cluster() || copy_unfinished(node_)) co_return;
  const postgres::ControlData control = co_await instance_.control_data();
  const auto refusal = core_.not_ours(control.system_identifier);
  if (!refusal) co_return;
  core_.refresh_stopped(control.system_identifier, WalPosition{});
  throw Error(*refusal);
}

asio::awaitable<void> Keeper::carry_out(Step step) {
  co_await check_identity();
  switch (step) {
    case Step::create_cluster: co_await create_cluster(); co_return;
    case Step::configure_primary: co_await configure_primary(); co_return;
    case Step::keep_running: co_await keep_running(); co_return;
    case Step::start: co_await start(); co_return;
    case Step::create_roles: co_await roles_and_slots(); co_return;
    case Step::stop: co_await stop_postgres(postgres::StopMode::fast); co_return;
    case Step::configure_standby: co_await configure_standby(true); co_return;
    case Step::cut_off: co_await cut_off(); co_return;
    case Step::fetch: co_await fetch(); co_return;
    case Step::release: release(); co_return;
    case Step::secure_timeline: asio::co_spawn(context_, background_checkpoint(), asio::detached); co_return;
    case Step::prepare_standby: co_await prepare(); co_return;
    case Step::checkpoint: {
      if (!core_.pg_running()) co_return;
      pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
      co_await checkpoint(local);
      co_return;
    }
    case Step::arm: {
      if (!core_.must_arm()) co_return;
      pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
      co_await checkpoint(local);
      core_.armed();
      co_return;
    }
    case Step::promote: {
      pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
      const LocalFacts seen = co_await look(local);
      if (const auto refusal = core_.no_promotion(seen, now())) throw Error(*refusal);
      co_await promote(local, instance_.settings().pgdata, core_.goal().promised_timeline);
      co_return;
    }
  }
}

// A standby runs on while its upstream is away. One that was rewound may need WAL that only the next upstream has, or
// none at all: then it waits no longer than this, and is looked at as it is.
asio::awaitable<void> Keeper::keep_running() {
  if (copy_unfinished(node_) || !postgres::has_standby_signal(instance_.settings().pgdata)) co_return;
  if (const auto refusal = core_.no_start(true, false, now())) throw Error(*refusal);
  const auto postmaster = instance_.postmaster();
  if (postmaster && core_.pg_answering()) co_return;
  std::string failure;
  try {
    co_await instance_.start(pg::Millis{5000});
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
  // A base backup may take hours: a new order ends it.
  const auto seq = core_.goal().seq;
  const auto superseded = [this, seq]() -> asio::awaitable<void> {
    while (core_.goal().seq == seq && !stopping_) co_await os::sleep_for(pg::Millis{100});
  };
  auto progress = [this](const std::string& line) {
    core_.progress(line);  // seen in `show state`
    if (::isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
      std::fflush(stderr);
    } else {
      log::debug("{}", line);
    }
  };
  Preparing preparing{source, running, core_.state().foreign_promotion, progress, false};
  co_await os::race(keeper::prepare_standby(node_, instance_, preparing), superseded());
  if (preparing.copied) keep(core_.copied());
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
  postgres::set_standby_signal(instance_.settings().pgdata, true);
  write_settings(standby_settings(node_, nullptr, SyncNames{}));
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

void Keeper::write_settings(postgres::Settings settings) {
  core_.wrote_names(!settings.at("synchronous_standby_names").empty());
  const bool encrypted = core_.state().sslmode != unencrypted;
  if (node_.config.ssl || encrypted) settings.merge(tls_settings(node_.config));
  make_missing_files(node_, instance_);
  const bool changed = write_own_settings(instance_, settings);
  const bool hba = node_.config.manage_hba &&
                   postgres::write_hba(instance_.hba_file(),
                                       hba_entries(node_, core_.state().peers, instance_.hba_file(), encrypted));
  if (!changed && !hba) return;
  if (instance_.postmaster()) instance_.reload();
}

asio::awaitable<void> Keeper::create_cluster() {
  if (instance_.has_cluster()) {
    if (postgres::has_standby_signal(instance_.settings().pgdata)) {
      throw Error("PGDATA is a standby of another system; promote it first, or use an empty directory");
    }
    co_return;
  }
  if (!instance_.directory_is_empty())
    throw Error(node_.config.pgdata + " is not empty and holds no cluster; it is left alone: empty it");
  co_await instance_.initdb(node_.config.auth);
}

asio::awaitable<void> Keeper::configure_primary() {
  write_settings(primary_settings(node_, core_.goal().names));
  co_return;
}

asio::awaitable<void> Keeper::configure_standby(bool with_upstream) {
  if (core_.pg_running() && core_.pg_answering() && !core_.facts().in_recovery) {
    throw Error("PostgreSQL runs as a primary here; it has to stop before it can follow another node");
  }
  const Peer* from = with_upstream ? core_.upstream() : nullptr;
  // A secondary whose primary has just gone keeps what it has: the monitor decides whether to cut it off.
  const bool keep = with_upstream && from == nullptr && core_.goal().state != NodeState::catchingup;
  // A writer's list is not a standby's: after a cut the next goal says what it is.
  const SyncNames names = runs_as_standby(core_.goal().state) ? core_.goal().names : SyncNames{};
  auto settings = standby_settings(node_, from, names);
  if (keep) {
    const auto present = postgres::read_settings(instance_.settings().pgdata);
    if (const auto conninfo = present.find("primary_conninfo"); conninfo != present.end()) {
      settings["primary_conninfo"] = conninfo->second;
    }
  }
  postgres::set_standby_signal(instance_.settings().pgdata, true);
  write_settings(settings);
  co_return;
}

asio::awaitable<void> Keeper::start() {
  const bool as_standby = postgres::has_standby_signal(instance_.settings().pgdata);
  if (const auto refusal = core_.no_start(as_standby, copy_unfinished(node_), now())) throw Error(*refusal);
  // A rewound standby may wait for WAL that never comes: a new order ends the waiting, PostgreSQL goes on starting.
  const auto seq = core_.goal().seq;
  bool ready = false;
  const auto begin = [&]() -> asio::awaitable<void> {
    co_await instance_.start(std::chrono::seconds{node_.config.start});
    ready = true;
  };
  const auto superseded = [this, seq]() -> asio::awaitable<void> {
    while (core_.goal().seq == seq && !stopping_) co_await os::sleep_for(pg::Millis{100});
  };
  co_await os::race(begin(), superseded());
  if (!ready) throw Error("another order has come while PostgreSQL was starting");
  started(as_standby);
}

void Keeper::started(bool as_standby) {
  const auto written = postgres::read_settings(instance_.settings().pgdata);
  const auto names = written.find("synchronous_standby_names");
  core_.started(as_standby, names != written.end() && !names->second.empty(), now());
}

asio::awaitable<void> Keeper::stop_postgres(postgres::StopMode mode) {
  co_await instance_.stop(mode, std::chrono::seconds{node_.config.stop});
  core_.saw_process(false, now());
}

asio::awaitable<void> Keeper::roles_and_slots() {
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const std::vector<Peer> peers = core_.state().peers;
  co_await create_roles(local, node_);
  co_await maintain_slots(local, peers, Lsn{});
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
    const LocalFacts facts = co_await look(local);
    if (!facts.has_receiver) {
      // A walreceiver could be on its way up with the old setting: the startup process reads the new one before it asks
      // again.
      const pg::Result setting =
          co_await local.query("SELECT current_setting('primary_conninfo') = '' AS cut", {}, pg::Millis{2000});
      if (setting.boolean(0, "cut")) co_return;
    }
    if (i % 100 == 99) instance_.reload();
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
    keep(core_.saw(facts, now()).save);
    co_return std::nullopt;
  }
  if (!instance_.has_cluster() || copy_unfinished(node_)) co_return std::nullopt;
  const postgres::ControlData control = co_await instance_.control_data();
  WalPosition position;
  position.timeline = control.timeline;
  position.history = read_history(instance_.settings().pgdata, control.timeline).value_or(History{});
  core_.refresh_stopped(control.system_identifier, position);
  // The shutdown checkpoint is the last record: who has a byte of it has everything before it.
  if (control.state != "shut down") co_return std::nullopt;
  co_return Lsn{control.checkpoint.value + 1};
}

}  // namespace pgvigil::keeper
