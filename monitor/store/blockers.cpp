#include "common/pg/connection.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;

namespace {

// At the heads of the queues: who waits in them for somebody else is not to blame. Those who may not see what another
// role does (pg_read_all_stats) see no state. A superuser is a member of every role, so it goes by the names.
constexpr const char* blockers_sql = R"(
  WITH RECURSIVE queue (pid) AS (SELECT unnest(pg_blocking_pids($1)) UNION SELECT unnest(pg_blocking_pids(q.pid)) FROM queue q),
  head AS (
    SELECT a.pid, a.usename, a.usesysid, coalesce(a.state, 'unknown') AS state,
           a.usename ~ '^pgvigil_(node|keeper_[0-9]+)$' AND (a.state ~ '^idle in transaction' OR
           a.state = 'active' AND a.query_start < clock_timestamp() - interval '5 s') AS ours
    FROM queue JOIN pg_stat_activity a USING (pid) WHERE cardinality(pg_blocking_pids(a.pid)) = 0)
  SELECT pid, coalesce(usename, '') AS role, state,
         CASE WHEN ours AND (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
              THEN pg_terminate_backend(pid) ELSE false END AS ended FROM head)";

}  // namespace

asio::awaitable<std::vector<Blocker>> end_blockers(pg::Connection& other, std::int64_t waiting) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(waiting));
  const pg::Result rows = co_await other.query(blockers_sql, params);
  std::vector<Blocker> blockers;
  for (int row = 0; row < rows.rows(); ++row) {
    blockers.push_back(
        {rows.integer(row, "pid"), rows.text(row, "role"), rows.text(row, "state"), rows.boolean(row, "ended")});
  }
  co_return blockers;
}

}  // namespace pgvigil::monitor
