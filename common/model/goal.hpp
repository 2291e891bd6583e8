// What a keeper and the monitor tell each other.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/model/history.hpp"
#include "common/model/node_state.hpp"
#include "common/model/sync_names.hpp"
#include "common/model/types.hpp"

namespace pgvigil {

// A member of the group, as its peers need to know it (HBA, slots, upstream).
struct Peer {
  NodeId id;
  std::string name;
  std::string host;
  int port{5432};
  bool is_primary{false};         // its goal takes writes (or it is being promoted)
  std::string sslmode{"prefer"};  // how libpq is to reach it: what its own keeper has seen to work
  friend bool operator==(const Peer&, const Peer&) = default;
};

// What the monitor wants of one node. A keeper obeys it only when (term, seq) is not older than what it has promised.
struct Goal {
  NodeState state{NodeState::init};
  Term term;
  std::int64_t seq{0};  // grows with every change of this node's goal
  // The names this node must have in force while it is a primary; `names_version` is echoed once they are.
  SyncNames names;
  std::int64_t names_version{0};
  // Changes with every registration, removal or move of a member; then the keeper fetches `peers` again.
  std::int64_t peers_version{0};
  // The node to stream from; nullopt when there is none.
  std::optional<NodeId> upstream;
  // Seconds (monotonic at the keeper) a primary may go on without contact: see keeper/fsm/fence.hpp.
  int lease_seconds{10};
  // A promotion begins a timeline of this number or a higher one: every promotion that was ever ordered has a number
  // of its own, also one that nobody has seen finish.
  Timeline promised_timeline;
  // Of the formation: for a monitor that has lost its memory (account.hpp).
  int number_sync_standbys{0};
  // How often the monitor wants to hear of the node; 0: it has not said so.
  int heartbeat_ms{0};
  // The least LSN of the group's members: a standby keeps the WAL from there on for its peers.
  Lsn wal_floor;
};

enum class UpstreamSight { unknown, ok, refused, silent };
std::string_view to_string(UpstreamSight sight);
std::optional<UpstreamSight> parse_upstream_sight(std::string_view text);

// What a keeper says of its node.
struct Report {
  NodeId node;
  NodeState state{NodeState::init};  // the last state that was completely reached, on disk before it is said
  Term term;                         // the highest term promised, on disk before it is said
  std::int64_t goal_seq{0};          // the goal that `state` belongs to
  bool pg_running{false};
  bool pg_responding{false};  // a query was answered lately
  Timeline timeline;
  Lsn lsn;  // primary: flushed; standby: the most that it has received or replayed; stopped: end of WAL
  std::int64_t names_version{0};                   // the version of the names that are in force here
  UpstreamSight upstream{UpstreamSight::unknown};  // a standby's own sight of its primary
  bool streaming{false};          // standby: its walreceiver streams. Primary: at least one standby streams from it
  bool disk_full{false};          // no room is left where PGDATA lies
  std::string reason;             // why the goal is not reached yet; empty when nothing is wrong
  std::string system_identifier;  // decimal; empty while there is no cluster
  History history;                // the ancestors of `timeline`
  bool operator==(const Report&) const = default;
};

}  // namespace pgvigil
