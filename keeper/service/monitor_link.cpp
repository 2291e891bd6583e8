// Reports, and the goals that come back.
#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/file.hpp"
#include "common/os/race.hpp"
#include "common/pg/conninfo.hpp"
#include "keeper/service/keeper.hpp"
#include "keeper/service/monitor_conninfo.hpp"

namespace pgvigil::keeper {

std::string monitor_conninfo(const config::Config& config) {
  pg::ConninfoMap values = pg::parse_conninfo(config.monitor_uri);
  if (!config.monitor_password_file.empty()) values["password"] = os::read_secret_file(config.monitor_password_file);
  values.try_emplace("application_name", "pgvigil-keeper");
  values.try_emplace("connect_timeout", "2");
  return pg::to_conninfo(values);
}

asio::awaitable<void> Keeper::monitor_link() {
  pg::Millis backoff{100};
  bool announced = false;
  while (!finished_) {
    std::string failure;
    const auto before = monitor_contact_;
    try {
      co_await monitor_session();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (finished_) co_return;
    const bool had_contact = monitor_contact_ != before;
    if (had_contact || !announced) log::warn("no contact with the monitor: {}", failure);
    announced = true;
    backoff = had_contact ? pg::Millis{50} : std::min(backoff * 2, pg::Millis{1000});
    co_await os::sleep_for(backoff);
  }
}

asio::awaitable<void> Keeper::monitor_session() {
  const std::string conninfo = monitor_conninfo(node_.config);
  pg::Connection monitor = co_await pg::Connection::connect(conninfo, pg::Millis{2000});
  co_await monitor_api::open_session(monitor, node_.id);
  const pg::Millis heartbeat{node_.config.heartbeat_ms};
  while (!finished_) {
    const Report report = make_report();
    const auto sent = Clock::now();
    const Goal goal = co_await monitor_api::report(monitor, report, pg::Millis{2000});
    if (!monitor_contact_) log::info("in contact with the monitor");
    monitor_contact_ = sent;
    if (goal.peers_version != state_.peers_version) {
      state_.peers = co_await monitor_api::get_peers(monitor, node_.id);
      state_.peers_version = goal.peers_version;
      save();
      dirty_ = true;
      reconcile_now_.set();
    }
    if (fenced_) reconcile_now_.set();
    accept(goal);
    const auto order = [&]() -> asio::awaitable<void> { co_await monitor.wait_notification(heartbeat); };
    const auto news = [&]() -> asio::awaitable<void> { co_await report_now_.wait(heartbeat); };
    co_await os::race(order(), news());
  }
}

}  // namespace pgvigil::keeper
