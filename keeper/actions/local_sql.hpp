// What the keeper asks of and tells its own PostgreSQL, over the Unix socket. Nothing here waits for a synchronous
// standby.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <string>
#include <vector>

#include "common/model/goal.hpp"
#include "common/pg/connection.hpp"
#include "keeper/actions/node.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

struct LocalFacts {
  bool in_recovery{false};
  bool streaming{false};     // standby: walreceiver streams; primary: a registered standby streams
  bool has_receiver{false};  // standby: a walreceiver process exists
  Timeline timeline;
  Lsn lsn;  // primary: flushed; standby: the most received (flushed) or replayed
  std::string system_identifier;
  std::string names_in_force;  // synchronous_standby_names as a new session sees it
};

// A local session with synchronous_commit = local and nothing of it in the server's log.
asio::awaitable<pg::Connection> open_local(const postgres::Instance& instance, pg::Millis timeout);
asio::awaitable<LocalFacts> observe(pg::Connection& local, pg::Millis timeout);

// Replication and probe roles (created when missing), the application's database.
asio::awaitable<void> create_roles(pg::Connection& local, const Node& node);
// One physical slot for each peer; ours of nodes that have left are dropped.
asio::awaitable<void> maintain_slots(pg::Connection& local, const std::vector<Peer>& peers);

// pg_promote and wait, asking every 10 ms. No-op on a primary.
asio::awaitable<void> promote(pg::Connection& local);
asio::awaitable<void> checkpoint(pg::Connection& local);

// How many of the members have flushed everything up to `lsn`, and are counted by their walsenders for the quorum.
asio::awaitable<int> members_holding(pg::Connection& local, const SyncNames& names, Lsn lsn);
asio::awaitable<Lsn> insert_position(pg::Connection& local);

}  // namespace pgvigil::keeper
