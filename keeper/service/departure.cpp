// How a keeper goes away: it lets its PostgreSQL go, or it stops it; a primary finds a successor first.
#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/race.hpp"
#include "keeper/service/keeper.hpp"
#include "keeper/service/monitor_access.hpp"

namespace pgvigil::keeper {

namespace {

bool hands_over(NodeState goal) {
  return goal == NodeState::draining || goal == NodeState::prepare_maintenance;
}

}  // namespace

void Keeper::stop(postgres::StopMode mode) {
  stopping_ = mode;
  reconcile_now_.set();
}

void Keeper::leave() {
  leaving_ = true;
  depart_now_.set();
}

void Keeper::let_go() {
  if (leaving_ || stopping_) return;  // a stop stays a stop
  letting_go_ = true;
  depart_now_.set();
}

std::string Keeper::describe() const {
  std::string text(to_string(core_.state().reported));
  if (!core_.converged()) text += ", on its way to " + std::string(to_string(core_.goal().state));
  text += !core_.pg_running()    ? "; PostgreSQL is not running"
          : core_.pg_answering() ? ""
                                 : "; PostgreSQL does not answer";
  if (!core_.in_contact(now())) text += "; no contact with the monitor";
  for (const std::string& trouble : {core_.reason(), notices()})
    if (!trouble.empty()) text += "; " + trouble;
  return text;
}

asio::awaitable<void> Keeper::await_departure() {
  while (!leaving_ && !letting_go_) co_await depart_now_.wait(std::chrono::hours{1});
  if (letting_go_) {
    log::info("starts anew; PostgreSQL goes on");
    co_return;
  }
  const auto limit = std::chrono::seconds{node_.config.switchover_on_stop};
  std::string failure;
  try {
    if (limit.count() > 0) co_await os::race(hand_over(), os::sleep_for(limit));
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (!failure.empty()) log::warn("stops without a successor: {}", failure);
  if (!stopping_) stop(postgres::StopMode::fast);
  for (;;) co_await os::sleep_for(std::chrono::hours{1});  // run() ends with reconcile()
}

// The order to drain comes by the monitor link and is carried out by reconcile(), as with any switchover.
asio::awaitable<void> Keeper::hand_over() {
  const NodeState role = core_.goal().state;
  if (takes_writes(role)) {
    if (role == NodeState::single || role == NodeState::wait_primary) co_return;  // nobody could take over
    if (!core_.has_lease(now())) throw Error("no contact with the monitor");
    log::info("asks for another node to take over");
    co_await ask_to_step_down();
  } else if (!hands_over(role)) {
    co_return;
  }
  // Past draining, the monitor has the end of our WAL and has ordered the promotion. Back among the writers, it has
  // given up.
  bool draining = false;
  for (;;) {
    const NodeState goal = core_.goal().state;
    if (draining && takes_writes(goal)) throw Error("the hand-over was given up");
    if (!takes_writes(goal) && !hands_over(goal)) co_return;
    draining = draining || hands_over(goal);
    co_await os::sleep_for(pg::Millis{10});
  }
}

asio::awaitable<void> Keeper::ask_to_step_down() {
  MonitorAccess access = co_await enter_monitor(node_, pg::Millis{2000});
  pg::Connection& monitor = access.session;
  std::optional<std::int64_t> request;
  while (!request) {
    try {
      request = co_await monitor_api::step_down(monitor, node_.id);
    } catch (const pg::SqlError& error) {
      if (error.sqlstate != "PV001") throw;  // PV001: another command is being carried out, this one has to wait
    }
    if (!request) co_await os::sleep_for(pg::Millis{100});
  }
  for (;;) {
    const monitor_api::RequestStatus answer = co_await monitor_api::request_status(monitor, *request);
    if (answer.status == "refused") throw Error("the monitor refuses: " + answer.message);
    if (answer.status == "accepted") co_return;
    co_await os::sleep_for(pg::Millis{20});
  }
}

}  // namespace pgvigil::keeper
