// Sees what PostgreSQL does: its process by pidfd, itself by a query on one persistent session.
#include <utility>

#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

constexpr pg::Millis answer_limit{1000};

}  // namespace

asio::awaitable<void> Keeper::watch() {
  postgres::Asking asking;
  while (!finished_) {
    std::optional<os::PidFd> postmaster;
    std::string unseen;
    try {
      postmaster = instance_.postmaster();
    } catch (const Error& error) {
      unseen = error.what();
    }
    if (!unseen.empty()) {
      log::warn("nobody can see whether PostgreSQL runs: {}", unseen);
      co_await os::sleep_for(pg::Millis{1000});
      continue;
    }
    if (!postmaster || !postmaster->alive()) {
      if (core_.saw_process(false, now())) {
        if (core_.goal().state != NodeState::maintenance) log::warn("PostgreSQL is not running any more");
        report_now_.set();
        reconcile_now_.set();
      }
      co_await os::sleep_for(pg::Millis{50});
      continue;
    }
    if (core_.saw_process(true, now())) report_now_.set();
    std::string failure = "it is starting";
    try {
      if (asking.due(instance_)) {
        failure.clear();
        co_await observe_once(*postmaster);
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (finished_) co_return;
    if (failure.empty()) continue;
    log::debug("local session: {}", failure);
    co_await end_stranger(*postmaster);
    if (core_.saw_silence(now())) {
      log::warn("PostgreSQL runs but does not answer: {}", failure);
      report_now_.set();
    }
    co_await postmaster->wait_exit(pg::Millis{10});
  }
}

// Somebody has started it, and postgresql.conf was without our settings then (an editor empties a file before it writes
// it): no session of ours finds it, and its commits wait for nobody.
asio::awaitable<void> Keeper::end_stranger(const os::PidFd& postmaster) {
  const NodeState goal = core_.goal().state;
  const std::string where = instance_.elsewhere(postmaster);
  if (where.empty() || goal == NodeState::maintenance || goal == NodeState::dropped) co_return;
  log::error("PostgreSQL is stopped: it runs without pgvigil's settings ({})", where);
  std::string failure;
  try {
    co_await instance_.stop(postgres::StopMode::fast, std::chrono::seconds{5});  // its sessions end at once
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (!failure.empty()) log::error("could not stop PostgreSQL, trying again: {}", failure);
}

// Observes over one session until the postmaster ends or the session breaks.
asio::awaitable<void> Keeper::observe_once(const os::PidFd& postmaster) {
  pg::Connection local = co_await open_local(instance_, answer_limit);
  while (!finished_) {
    const LocalFacts facts = co_await look(local);
    const bool foreign = core_.state().foreign_promotion;
    const Core::Seen seen = core_.saw(facts, now());
    keep(seen.save);
    // Also the timeline of a cluster that was taken over: it may stop on it, and is nobody else's then.
    if (!facts.in_recovery && takes_writes(core_.state().reported)) keep(core_.promoted(facts.timeline));
    if (core_.state().foreign_promotion && !foreign)
      log::error("PostgreSQL was promoted here by somebody else; this node has to be copied again");
    if (seen.news) {
      report_now_.set();
      names_now_.set();
    }
    if (facts.replay_paused != !replay_notice_.empty()) co_await see_replay(local, facts.replay_paused);
    bool ended = false;
    const pg::Millis pause{core_.urgent() ? 10 : 250};
    const auto end = [&]() -> asio::awaitable<void> { ended = co_await postmaster.wait_exit(pause); };
    const auto order = [&]() -> asio::awaitable<void> { co_await watch_now_.wait(pause); };
    co_await os::race(end(), order());
    if (ended || !postmaster.alive()) co_return;
  }
}

// By somebody, or for good: then it goes on when it has been started again with larger limits.
asio::awaitable<void> Keeper::see_replay(pg::Connection& local, bool paused) {
  report_now_.set();
  if (!paused) {
    replay_notice_.clear();
    co_return;
  }
  const postgres::Settings limits = co_await lacking_limits(instance_, local);
  larger_limits_due_ = !limits.empty();
  if (limits.empty()) {
    replay_notice_ = "the replay is paused, and what is read here grows old: pg_wal_replay_resume() ends that";
    log::warn("{}", replay_notice_);
    co_return;
  }
  limits_lack_ = true;
  replay_notice_ = "the replay has stopped, for its primary has larger limits:";
  for (const auto& [name, value] : limits) replay_notice_ += " " + name + " = " + value;
  log::warn("{}; PostgreSQL is started again with these", replay_notice_);
  core_.disturb();
  reconcile_now_.set();
}

// A disk that is full or hangs is no crash: PostgreSQL answers and takes no write. Whoever has a better one can take
// over.
asio::awaitable<void> Keeper::watch_disk() {
  bool hung = false;
  while (!finished_) {
    const bool ours = core_.pg_running() && core_.goal().state != NodeState::maintenance;
    disk_.look(instance_.settings().pgdata, core_.facts().lsn, ours, now());
    if (core_.saw_disk(disk_.full())) report_now_.set();
    if (std::exchange(hung, disk_.hung()) != hung) {
      log::warn("{}", hung ? disk_.notice() : "the disk answers again");
      report_now_.set();
    }
    co_await os::sleep_for(pg::Millis{250});
  }
}

}  // namespace pgvigil::keeper
