#include "common/pg/connection.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;

namespace {

// At the heads of the queues: who waits in them for somebody else is not to blame, nor is a session of ours that has been
// busy for less than 5 s. Those who may not see what another role does (pg_read_all_stats) see no state. A superuser is
// a member of every role, so it goes by the names.
constexpr const char* blockers_sql = R"(
  WITH RECURSIVE queue (pid) AS (SELECT unnest(pg_blocking_pids($1)) UNION SELECT unnest(pg_blocking_pids(q.pid)) FROM queue q),
  head AS (
    SELECT a.pid, a.usename, a.usesysid, coalesce(a.state, 'unknown') AS state,
           a.usename ~ '^pgvigil_(node|keeper_[0-9]+)$' AND a.state ~ '^(active|idle in transaction)' AS ours,
           a.state = 'active' AND a.query_start > clock_timestamp() - interval '5 s' AS busy
    FROM queue JOIN pg_stat_activity a USING (pid) WHERE cardinality(pg_blocking_pids(a.pid)) = 0),
  judged AS (
    SELECT *, ours AND (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')) AS to_end
    FROM head WHERE (ours AND busy) IS NOT TRUE)
  SELECT pid, coalesce(usename, '') AS role, state, coalesce(to_end, false) AS to_end,
         CASE WHEN to_end AND pid = ANY ($2::int[]) THEN pg_terminate_backend(pid) END FROM judged)";

}  // namespace

asio::awaitable<std::vector<Blocker>> end_blockers(pg::Connection& other, std::int64_t waiting,
                                                   const std::set<Blocker>& announced) {
  std::string pids;
  for (const Blocker& blocker : announced) {
    if (blocker.to_end) pids += (pids.empty() ? "" : ",") + std::to_string(blocker.pid);
  }
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(waiting));
  params.emplace_back("{" + pids + "}");
  const pg::Result rows = co_await other.query(blockers_sql, params);
  std::vector<Blocker> blockers;
  for (int row = 0; row < rows.rows(); ++row) {
    blockers.push_back(
        {rows.integer(row, "pid"), rows.text(row, "role"), rows.text(row, "state"), rows.boolean(row, "to_end")});
  }
  co_return blockers;
}

}  // namespace pgvigil::monitor
