// Copying and rewinding from another node. Rule S4: nothing is replaced before the divergence is established and the
// upstream is proven to be of the same system and to hold the group's history.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/model/goal.hpp"
#include "keeper/actions/node.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

// One line of a timeline history file: `timeline` ended at `switch_point`, where its child began.
struct HistoryEntry {
  Timeline timeline;
  Lsn switch_point;
};
// The text of a .history file; throws pgvigil::Error on a malformed line. Format: PostgreSQL's timeline.c,
// readTimeLineHistory().
std::vector<HistoryEntry> parse_history(const std::string& text);

struct UpstreamIdentity {
  std::string system_identifier;
  Timeline timeline;
  Lsn position;
  std::vector<HistoryEntry> history;  // of `timeline`: its ancestors
};

// Where the local history stands. `exact` is false after a crash: WAL may go on past `lsn`.
struct LocalPosition {
  Timeline timeline;
  Lsn lsn;
  bool exact{true};
};

enum class Relation {
  same_history,  // can stream as it is
  diverged,      // has WAL that the upstream's history does not have
  unknown,       // crashed on an older timeline: pg_rewind has to look
  ahead,         // on a timeline that the upstream does not know
};
Relation compare(const LocalPosition& local, const UpstreamIdentity& upstream);

// Over the replication protocol. Throws pg::ConnectionError / pg::SqlError.
asio::awaitable<UpstreamIdentity> identify(const Node& node, const Peer& upstream);

using Progress = std::function<void(const std::string&)>;

// Makes PGDATA fit to stream from `upstream`: nothing to do, a rewind, or a base backup. `running` is where a running
// standby stands. PostgreSQL is stopped when it has to be. Throws pgvigil::Error with the reason when it can't be done
// now; it can be called again.
asio::awaitable<void> prepare_standby(const Node& node, postgres::Instance& instance, const Peer& upstream,
                                      std::optional<LocalPosition> running, Progress progress);

// A copy or a rewind was begun and not finished: PGDATA can't be started.
bool copy_unfinished(const Node& node);

}  // namespace pgvigil::keeper
