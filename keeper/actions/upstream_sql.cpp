#include "keeper/actions/upstream_sql.hpp"

#include "common/pg/conninfo.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

asio::awaitable<pg::Result> ask(const Node& node, const Peer& upstream, std::string sql) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "postgres") + " replication='database'";
  pg::Connection source = co_await pg::Connection::connect(conninfo, upstream_wait);
  co_return co_await source.query(sql, {}, upstream_wait);
}

asio::awaitable<UpstreamIdentity> identify(const Node& node, const Peer& upstream) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "") + " replication='true'";
  pg::Connection connection = co_await pg::Connection::connect(conninfo, upstream_wait);
  const pg::Result system = co_await connection.query("IDENTIFY_SYSTEM", {}, upstream_wait);
  UpstreamIdentity identity;
  identity.system_identifier = system.text(0, "systemid");
  WalPosition& position = identity.position;
  position.timeline.value = static_cast<std::uint32_t>(system.integer(0, "timeline"));
  position.lsn = parse_lsn(system.text(0, "xlogpos")).value_or(Lsn{});
  if (position.timeline.value > 1) {
    const std::string command = "TIMELINE_HISTORY " + std::to_string(position.timeline.value);
    const pg::Result history = co_await connection.query(command, {}, upstream_wait);
    position.history = parse_history_file(history.text(0, "content"));
  }
  co_return identity;
}

asio::awaitable<bool> can_send(const Node& node, const Peer& upstream, const UpstreamIdentity& identity, Lsn from,
                               std::uint64_t segment_size) {
  // The file of what comes next may not be there yet.
  if (from >= identity.position.lsn) co_return true;
  const std::string file = file_sent(identity.position, from, segment_size);
  const pg::Result row =
      co_await ask(node, upstream,
                   "SELECT count(*) > 0 AS found FROM pg_ls_dir('pg_wal', true, false) AS name WHERE name = " +
                       pg::quote_literal(file));
  co_return row.boolean(0, "found");
}

}  // namespace pgvigil::keeper
