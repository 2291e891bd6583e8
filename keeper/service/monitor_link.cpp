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
  std::string announced;
  while (!finished_) {
    std::string failure;
    const auto before = core_.contact();
    try {
      co_await monitor_session();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (finished_) co_return;
    const bool had_contact = core_.contact() != before;
    if (had_contact || announced != failure) log::warn("no contact with the monitor: {}", failure);
    announced = failure;
    backoff = had_contact ? pg::Millis{50} : std::min(backoff * 2, pg::Millis{1000});
    co_await os::sleep_for(backoff);
  }
}

asio::awaitable<void> Keeper::monitor_session() {
  const std::string conninfo = monitor_conninfo(node_.config);
  pg::Connection monitor = co_await pg::Connection::connect(conninfo, pg::Millis{2000});
  monitor_api::Attention attention;
  co_await attention.open(monitor, node_.id);
  const pg::Millis heartbeat{node_.config.heartbeat_ms};
  while (!finished_) {
    const auto sent = now();
    const Report report = core_.report(sent);
    const Goal goal = co_await monitor_api::report(monitor, report, pg::Millis{2000});
    if (!core_.contact()) log::info("in contact with the monitor");
    const Term promised = core_.state().term;
    if (goal.term < promised && refused_term_ != goal.term) {
      refused_term_ = goal.term;
      log::error(
          "the monitor is at term {}, but term {} was promised here: it was restored from an old backup, and its "
          "orders are refused; put a newer one back",
          goal.term.value, promised.value);
    }
    keep(core_.answered(goal, sent, now()));
    if (core_.goal().state != logged_goal_) {
      log::info("goal {} -> {} (term {})", to_string(logged_goal_), to_string(core_.goal().state), goal.term.value);
      logged_goal_ = core_.goal().state;
    }
    if (goal.peers_version != core_.state().peers_version) {
      const std::vector<Peer> peers = co_await monitor_api::get_peers(monitor, node_.id);
      keep(core_.learned_peers(peers, goal.peers_version));
    }
    watch_now_.set();
    reconcile_now_.set();
    if (co_await attention.after(monitor, report, goal)) continue;
    const auto order = [&]() -> asio::awaitable<void> { co_await monitor.wait_notification(heartbeat); };
    const auto news = [&]() -> asio::awaitable<void> { co_await report_now_.wait(heartbeat); };
    co_await os::race(order(), news());
  }
}

}  // namespace pgvigil::keeper
