// Carries goals out: the steps that the core asks for, one after the other.
#include "common/log/log.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

asio::awaitable<void> Keeper::reconcile() {
  pg::Millis pause{0};
  while (!finished_) {
    if (pause.count() > 0) co_await reconcile_now_.wait(pause);
    if (stopping_) {
      log::info("stopping PostgreSQL");
      co_await instance_.stop(*stopping_, std::chrono::seconds{node_.config.stop});
      disk_.tidy(instance_.settings().pgdata);
      finished_ = true;
      co_return;
    }
    const Core::Work work = core_.next(now());
    pause = work.again;
    if (work.kind == Core::Work::Kind::nothing) {
      log_reason();
      continue;
    }
    std::string failure;
    try {
      if (work.kind == Core::Work::Kind::step) {
        log::debug("step {}", to_string(work.step));
        recorder_.begins(work.step, now());
        co_await carry_out(work.step);
        recorder_.done(work.step, now());
        if (work.step == Step::promote) promoted_now_.set();
        core_.done();
      } else {
        co_await settle();
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) core_.failed(failure, now());
    log_reason();
  }
}

// The report that says "reached" must carry figures from after the last step.
asio::awaitable<void> Keeper::settle() {
  const auto end_of_wal = co_await refresh_facts();
  if (!holds_state()) throw Error(state_file_.failure());
  const NodeState before = core_.state().reported;
  keep(core_.settled(end_of_wal, now()));
  const NodeState state = core_.state().reported;
  if (state != before) log::info("state {} -> {}", to_string(before), to_string(state));
  const Millis reached = now();
  recorder_.settled(state, reached);
  report_now_.set();
  names_now_.set();
  if (state != NodeState::dropped || !core_.converged()) co_return;
  // Stay until the monitor has heard it: nobody else could tell it.
  while (core_.last_answer().value_or(Millis{0}) < reached && !stopping_) co_await os::sleep_for(pg::Millis{10});
  log::info("dropped from the formation; PGDATA is left as it is");
  exit_code_ = ExitCode::dropped;
  finished_ = true;
}

}  // namespace pgvigil::keeper
