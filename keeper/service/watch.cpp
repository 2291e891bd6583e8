// Sees what PostgreSQL does: its process by pidfd, itself by a query on one persistent session.
#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

constexpr pg::Millis answer_limit{1000};

// States in which the monitor waits for the next LSN of this node.
bool urgent(const KeeperState& state) {
  const bool converged = state.reported == state.goal.state && state.reported_seq == state.goal.seq;
  return !converged || state.reported == NodeState::prepare_promotion || state.reported == NodeState::catchingup ||
         state.reported == NodeState::report_lsn;
}

}  // namespace

asio::awaitable<void> Keeper::watch() {
  while (!finished_) {
    const auto postmaster = instance_.postmaster();
    if (!postmaster || !postmaster->alive()) {
      if (pg_running_) {
        log::warn("PostgreSQL is not running any more");
        pg_running_ = false;
        pg_answering_ = false;
        facts_.streaming = false;
        dirty_ = true;
        report_now_.set();
        reconcile_now_.set();
      }
      co_await os::sleep_for(pg::Millis{50});
      continue;
    }
    if (!pg_running_) {
      pg_running_ = true;
      final_lsn_.reset();
      report_now_.set();
    }
    std::string failure;
    try {
      co_await observe_once(*postmaster);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (finished_) co_return;
    if (failure.empty()) continue;
    log::debug("local session: {}", failure);
    if (pg_answering_ && Clock::now() - pg_answered_ >= std::chrono::seconds{2}) {
      pg_answering_ = false;
      log::warn("PostgreSQL runs but does not answer: {}", failure);
      report_now_.set();
    }
    co_await postmaster->wait_exit(pg::Millis{20});
  }
}

// Observes over one session until the postmaster ends or the session breaks.
asio::awaitable<void> Keeper::observe_once(const os::PidFd& postmaster) {
  pg::Connection local = co_await open_local(instance_, answer_limit);
  while (!finished_) {
    const LocalFacts facts = co_await observe(local, answer_limit);
    const bool was_answering = std::exchange(pg_answering_, true);
    pg_answered_ = Clock::now();
    const bool news = !was_answering || facts.streaming != facts_.streaming ||
                      facts.in_recovery != facts_.in_recovery || facts.timeline != facts_.timeline ||
                      (urgent(state_) && facts.lsn != facts_.lsn);
    facts_ = facts;
    if (!facts.in_recovery && facts.streaming) standby_contact_ = Clock::now();
    if (facts.timeline > state_.timeline) {
      state_.timeline = facts.timeline;
      save();
    }
    if (news) {
      report_now_.set();
      names_now_.set();
    }
    bool ended = false;
    const pg::Millis pause{urgent(state_) ? 10 : 250};
    const auto end = [&]() -> asio::awaitable<void> { ended = co_await postmaster.wait_exit(pause); };
    const auto order = [&]() -> asio::awaitable<void> { co_await watch_now_.wait(pause); };
    co_await os::race(end(), order());
    if (ended || !postmaster.alive()) co_return;
  }
}

}  // namespace pgvigil::keeper
