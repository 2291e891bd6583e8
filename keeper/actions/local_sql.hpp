// What the keeper asks of and tells its own PostgreSQL, over the Unix socket. Nothing here waits for a synchronous
// standby.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/model/goal.hpp"
#include "common/pg/connection.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/actions/room.hpp"
#include "keeper/fsm/core.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

// A local session with synchronous_commit = local and nothing of it in the server's log.
asio::awaitable<pg::Connection> open_local(const postgres::Instance& instance, pg::Millis timeout);
// `pgdata`: where the histories of timelines lie. `at_least`: a timeline that WAL is known to have been received on.
asio::awaitable<LocalFacts> observe(pg::Connection& local, pg::Millis timeout, const std::filesystem::path& pgdata,
                                    Timeline at_least);

// Replication and probe roles, the application's database: created when missing. `anew`: roles that are there, perhaps
// of another formation whose copy this cluster is, get this one's passwords and rights.
asio::awaitable<void> create_roles(pg::Connection& local, const Node& node, bool anew);
struct SlotCare {
  std::vector<Peer> peers;
  SyncNames names;           // commits wait for its members: they are not given up
  Lsn floor;                 // on a standby
  std::optional<Room> room;  // where the WAL lies
};
struct SlotsSeen {
  std::string notice;   // whom the WAL is kept for, when that is much
  std::string dropped;  // what was given up: a checkpoint removes the WAL
};
// One physical slot for each peer; ours of nodes that have left are dropped, and those that have lost their WAL are
// made anew. So are those of nodes that do not stream and hold much when the room runs out: a PostgreSQL without room
// ends, and so would all nodes at once; the absent one is copied again. On a standby they are moved on to `floor`:
// after a failover the others find the WAL from there on.
asio::awaitable<SlotsSeen> maintain_slots(pg::Connection& local, SlotCare care);

// pg_promote and wait, asking every 10 ms. No-op on a primary. Sessions whose queries hold the replay up are ended
// after a second: writes wait for it. The timeline that begins has at least the number `promised`: lower ones are taken
// by histories of their own, so that no two promotions of a group ever share a number. `ask`: called just before it is
// asked for; false: it is not wanted any more. From then on it may happen without us.
asio::awaitable<void> promote(pg::Connection& local, const std::filesystem::path& pgdata, Timeline promised,
                              std::function<bool()> ask);
// SIGTERM to the walreceiver, which ends by itself only when the startup process gets to reading its settings: not
// while its replay is held up.
asio::awaitable<void> end_receiver(pg::Connection& local);
// "FILE, line N: what" when the server could not take over its configuration files; "" when it could.
asio::awaitable<std::string> configuration_error(pg::Connection& local);
asio::awaitable<void> checkpoint(pg::Connection& local);

// Nothing can arrive from an upstream any more: there is none by the settings, and no walreceiver, also none that is
// still connecting (by the settings of before).
asio::awaitable<bool> receives_no_more(pg::Connection& local, const postgres::Instance& instance);

// How many of the members have flushed everything up to `lsn`, and are counted by their walsenders for the quorum. 0
// while a walsender still counts by an older list.
asio::awaitable<int> members_holding(pg::Connection& local, const SyncNames& names, Lsn lsn);
// The pids of walsenders that a hand-over need not wait for: all but those of the members and of standbys that are up
// to date, of which one is to take over.
asio::awaitable<std::vector<pid_t>> expendable_walsenders(pg::Connection& local, const SyncNames& names);
// Ends the walsenders of our standbys; they come back at once.
asio::awaitable<void> restart_walsenders(pg::Connection& local);
asio::awaitable<Lsn> insert_position(pg::Connection& local);

}  // namespace pgvigil::keeper
