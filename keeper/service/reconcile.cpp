// Carries goals out: the plan's steps, one after the other, until the goal changes or a step fails.
#include "common/log/log.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

constexpr pg::Millis first_retry{100};
constexpr pg::Millis last_retry{5000};
// After a crash of a primary's PostgreSQL the monitor may prefer a failover; it decides well within this time.
constexpr pg::Millis failover_first{500};

bool must_run(NodeState state) {
  return takes_writes(state) || runs_as_standby(state);
}

}  // namespace

asio::awaitable<void> Keeper::reconcile() {
  pg::Millis retry{0};
  while (!finished_) {
    const bool woken = co_await reconcile_now_.wait(retry.count() > 0 ? retry : pg::Millis{1000});
    // A new order ends the patience with the old one.
    if (woken && retry.count() > 0) retry = first_retry;
    std::string failure;
    try {
      co_await reconcile_once();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (failure.empty()) {
      retry = pg::Millis{0};
      continue;
    }
    say(failure);
    dirty_ = true;
    retry = retry.count() == 0 ? first_retry : std::min(retry * 2, last_retry);
  }
}

asio::awaitable<void> Keeper::reconcile_once() {
  if (stopping_) {
    log::info("stopping PostgreSQL");
    co_await instance_.stop(*stopping_, std::chrono::seconds{node_.config.stop});
    finished_ = true;
    co_return;
  }
  const auto converged = [&] { return state_.reported == state_.goal.state && state_.reported_seq == state_.goal.seq; };
  const bool crashed = must_run(state_.goal.state) && !pg_running_;
  if (converged() && !dirty_ && !crashed) co_return;
  if (fenced_) {
    const auto lease = std::chrono::seconds{state_.goal.lease_seconds};
    if (!monitor_contact_ || Clock::now() - *monitor_contact_ >= lease) co_return;
    log::info("in contact with the monitor again: the fence is lifted");
    fenced_ = false;
  }
  if (crashed && converged() && takes_writes(state_.reported) && !asynchronous() && monitor_contact_) {
    const auto held = state_.goal.seq;
    for (pg::Millis waited{0}; waited < failover_first && state_.goal.seq == held && !stopping_;
         waited += pg::Millis{10}) {
      co_await os::sleep_for(pg::Millis{10});
    }
  }
  const Goal goal = state_.goal;
  if (goal.seq == 0) co_return;  // nothing was ordered yet
  const auto steps = plan(state_.reported, goal.state);
  if (!steps)
    throw Error("there is no way from " + std::string(to_string(state_.reported)) + " to " +
                std::string(to_string(goal.state)));
  dirty_ = false;
  for (const Step step : *steps) {
    if (state_.goal.seq != goal.seq || stopping_) {
      reconcile_now_.set();
      co_return;
    }
    log::debug("step {}", to_string(step));
    co_await carry_out(step);
  }
  co_await refresh_facts();
  if (state_.goal.seq != goal.seq) {
    reconcile_now_.set();
    co_return;
  }
  if (!converged()) {
    if (state_.reported != goal.state) log::info("state {} -> {}", to_string(state_.reported), to_string(goal.state));
    state_.reported = goal.state;
    state_.reported_seq = goal.seq;
    save();
  }
  reason_.clear();
  const auto reached = Clock::now();
  report_now_.set();
  names_now_.set();
  if (goal.state == NodeState::dropped) {
    // Stay until the monitor has heard it, but not for ever: the order is carried out.
    for (int i = 0; i < 500 && (!monitor_contact_ || *monitor_contact_ < reached); ++i)
      co_await os::sleep_for(pg::Millis{10});
    log::info("dropped from the formation; PGDATA is left as it is");
    exit_code_ = ExitCode::dropped;
    finished_ = true;
  }
}

}  // namespace pgvigil::keeper
