// What the keeper asks of and tells its own PostgreSQL, over the Unix socket. Nothing here waits for a synchronous
// standby.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <string>
#include <vector>

#include "common/model/goal.hpp"
#include "common/pg/connection.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/fsm/core.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

// A local session with synchronous_commit = local and nothing of it in the server's log.
asio::awaitable<pg::Connection> open_local(const postgres::Instance& instance, pg::Millis timeout);
// `pgdata`: where the histories of timelines lie. `at_least`: a timeline that WAL is known to have been received on.
asio::awaitable<LocalFacts> observe(pg::Connection& local, pg::Millis timeout, const std::filesystem::path& pgdata,
                                    Timeline at_least);
// The ancestors of a timeline, from pg_wal; nullopt when its history file is not there. Timeline 1 has none.
std::optional<History> read_history(const std::filesystem::path& pgdata, Timeline timeline);

// Replication and probe roles (created when missing), the application's database.
asio::awaitable<void> create_roles(pg::Connection& local, const Node& node);
// One physical slot for each peer; ours of nodes that have left are dropped, and those that have lost their WAL are
// made anew. On a standby they are moved on to `floor`: after a failover the others find the WAL from there on.
asio::awaitable<void> maintain_slots(pg::Connection& local, const std::vector<Peer>& peers, Lsn floor);

// pg_promote and wait, asking every 10 ms. No-op on a primary. The timeline that begins has at least the number
// `promised`: lower ones are taken by histories of their own, so that no two promotions of a group ever share a number.
asio::awaitable<void> promote(pg::Connection& local, const std::filesystem::path& pgdata, Timeline promised);
// "FILE, line N: what" when the server could not take over its configuration files; "" when it could.
asio::awaitable<std::string> configuration_error(pg::Connection& local);
asio::awaitable<void> checkpoint(pg::Connection& local);

// How many of the members have flushed everything up to `lsn`, and are counted by their walsenders for the quorum. 0
// while a walsender still counts by an older list.
asio::awaitable<int> members_holding(pg::Connection& local, const SyncNames& names, Lsn lsn);
// Ends the walsenders of our standbys; they come back at once.
asio::awaitable<void> restart_walsenders(pg::Connection& local);
asio::awaitable<Lsn> insert_position(pg::Connection& local);

}  // namespace pgvigil::keeper
