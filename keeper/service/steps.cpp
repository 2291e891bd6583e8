// The steps of the plans, each idempotent.
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdio>

#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

asio::awaitable<void> Keeper::carry_out(Step step) {
  switch (step) {
    case Step::create_cluster: co_await create_cluster(); co_return;
    case Step::configure_primary: co_await configure_primary(); co_return;
    case Step::keep_running:
      if (!copy_unfinished(node_) && postgres::has_standby_signal(instance_.settings().pgdata)) co_await start();
      co_return;
    case Step::start: co_await start(); co_return;
    case Step::create_roles: co_await roles_and_slots(); co_return;
    case Step::stop: co_await stop_postgres(postgres::StopMode::fast); co_return;
    case Step::configure_standby: co_await configure_standby(true); co_return;
    case Step::cut_off: co_await cut_off(); co_return;
    case Step::secure_timeline: asio::co_spawn(context_, background_checkpoint(), asio::detached); co_return;
    case Step::checkpoint: {
      if (!pg_running_) co_return;
      pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
      co_await checkpoint(local);
      co_return;
    }
    case Step::promote: {
      pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
      co_await promote(local);
      co_return;
    }
    case Step::prepare_standby: {
      const Peer* from = upstream();
      if (from == nullptr) throw Error("waiting for a primary to stream from");
      const Peer source = *from;
      std::optional<LocalPosition> running;
      if (pg_running_ && pg_answering_) {
        if (!facts_.in_recovery)
          co_await stop_postgres(postgres::StopMode::fast);
        else
          running = LocalPosition{facts_.timeline, facts_.lsn, true};
      }
      // A base backup may take hours: a new order ends it.
      const auto seq = state_.goal.seq;
      const auto superseded = [this, seq]() -> asio::awaitable<void> {
        while (state_.goal.seq == seq && !stopping_) co_await os::sleep_for(pg::Millis{100});
      };
      auto progress = [this](const std::string& line) {
        reason_ = line;  // seen in `show state`
        if (::isatty(STDERR_FILENO) != 0) {
          std::fprintf(stderr, "\r\033[K%s", line.c_str());
          std::fflush(stderr);
        } else {
          log::debug("{}", line);
        }
      };
      co_await os::race(keeper::prepare_standby(node_, instance_, source, running, progress), superseded());
      co_return;
    }
  }
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

void Keeper::write_settings(const postgres::Settings& settings) {
  const bool changed = postgres::write_settings(instance_.settings().pgdata, instance_.config_file(), settings);
  const bool hba =
      node_.config.manage_hba && postgres::write_hba(instance_.hba_file(), hba_entries(node_, state_.peers));
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
  write_settings(primary_settings(node_, state_.goal.names));
  co_return;
}

asio::awaitable<void> Keeper::configure_standby(bool with_upstream) {
  if (pg_running_ && pg_answering_ && !facts_.in_recovery) {
    throw Error("PostgreSQL runs as a primary here; it has to stop before it can follow another node");
  }
  const Peer* from = with_upstream ? upstream() : nullptr;
  // A secondary whose primary has just gone keeps what it has: the monitor decides whether to cut it off.
  const bool keep = with_upstream && from == nullptr && state_.goal.state != NodeState::catchingup;
  auto settings = standby_settings(node_, from);
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
  if (fenced_) throw Error("fenced: no contact with the monitor");
  const bool as_standby = postgres::has_standby_signal(instance_.settings().pgdata);
  if (!as_standby && takes_writes(state_.goal.state) && !lease_allows_start()) {
    throw Error("waits for the monitor's word before it starts as a primary");
  }
  if (copy_unfinished(node_))
    throw Error("PGDATA is an unfinished copy; it is copied again as soon as there is a primary");
  standby_contact_ = Clock::now();  // standbys get the length of a lease to find this primary
  co_await instance_.start(std::chrono::seconds{node_.config.start});
  pg_running_ = true;
  pg_answering_ = true;
  pg_answered_ = Clock::now();
  final_lsn_.reset();
}

asio::awaitable<void> Keeper::stop_postgres(postgres::StopMode mode) {
  co_await instance_.stop(mode, std::chrono::seconds{node_.config.stop});
  pg_running_ = false;
  pg_answering_ = false;
  facts_.streaming = false;
}

asio::awaitable<void> Keeper::roles_and_slots() {
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const std::vector<Peer> peers = state_.peers;
  co_await create_roles(local, node_);
  co_await maintain_slots(local, peers);
}

// The vote's first half (DESIGN: fence by quorum): nothing of the old primary may arrive after the LSN has been told.
asio::awaitable<void> Keeper::cut_off() {
  if (pg_running_ && pg_answering_ && !facts_.in_recovery) co_await stop_postgres(postgres::StopMode::fast);
  co_await configure_standby(false);
  if (!instance_.postmaster()) co_return;
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  for (int i = 0;; ++i) {
    const LocalFacts facts = co_await observe(local, pg::Millis{2000});
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

// The report that says "reached" must carry figures from after the last step.
asio::awaitable<void> Keeper::refresh_facts() {
  if (const auto postmaster = instance_.postmaster()) {
    pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
    facts_ = co_await observe(local, pg::Millis{2000});
    pg_running_ = true;
    pg_answering_ = true;
    pg_answered_ = Clock::now();
  } else {
    pg_running_ = false;
    pg_answering_ = false;
    final_lsn_.reset();
    if (!instance_.has_cluster() || copy_unfinished(node_)) co_return;
    const postgres::ControlData control = co_await instance_.control_data();
    facts_.system_identifier = control.system_identifier;
    facts_.timeline = control.timeline;
    // The shutdown checkpoint is the last record: who has a byte of it has everything before it.
    if (control.state == "shut down") final_lsn_ = Lsn{control.checkpoint.value + 1};
  }
  if (facts_.timeline > state_.timeline) state_.timeline = facts_.timeline;
}

}  // namespace pgvigil::keeper
