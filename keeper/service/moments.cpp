// What a takeover consisted of, for `show events --failover`: told after the state, and never in its way.
#include <algorithm>

#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

// Who has not written by then is not waiting for this primary.
constexpr Millis patience_with_clients{60000};

// A transaction that wrote has ended; an ordinary session is there (autovacuum writes, too).
constexpr const char* writes_sql = R"(
  SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS next,
         EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                 AND usename <> $1 AND usename <> $2 AND application_name NOT LIKE 'pgvigil%') AS client)";

}  // namespace

asio::awaitable<void> Keeper::see_first_write() {
  while (!finished_) {
    co_await promoted_now_.wait(std::chrono::hours{1});
    if (finished_ || !recorder_.awaits_write()) continue;
    std::string failure;
    try {
      co_await watch_for_write();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::debug("no first write seen: {}", failure);
  }
}

// Commits wait for their standbys before they count here: what is seen was acknowledged.
asio::awaitable<void> Keeper::watch_for_write() {
  const Millis began = now();
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  std::vector<pg::Param> params;
  params.emplace_back(replication_role);
  params.emplace_back(probe_role);
  std::string first;
  bool client = false;
  while (recorder_.awaits_write() && now() - began < patience_with_clients) {
    const pg::Result row = co_await local.query_prepared(writes_sql, params, pg::Millis{2000});
    const std::string next = row.text(0, "next");
    if (first.empty()) first = next;
    client = client || row.boolean(0, "client");
    if (client && next != first) {
      recorder_.wrote(now());
      co_return;
    }
    // As precise as the time that has passed is long.
    co_await os::sleep_for(std::clamp((now() - began) / 50, Millis{10}, Millis{250}));
  }
}

asio::awaitable<void> Keeper::tell_moments(pg::Connection& monitor) {
  const auto telling = recorder_.telling();
  if (!telling) co_return;
  std::string failure;
  try {
    co_await monitor_api::tell_moments(monitor, node_.id, telling->term, telling->moments);
  } catch (const pg::SqlError& error) {
    failure = error.what();  // an older monitor: it goes without
  }
  recorder_.told(*telling);
  if (!failure.empty()) log::debug("the monitor takes no moments: {}", failure);
}

}  // namespace pgvigil::keeper
