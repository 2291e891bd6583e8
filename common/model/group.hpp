// A consistent picture of one group, as the monitor's state machine sees it, and what it may change.
#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "common/model/account.hpp"
#include "common/model/goal.hpp"
#include "common/model/node_state.hpp"
#include "common/model/sync_names.hpp"
#include "common/model/types.hpp"

namespace pgvigil {

using Millis = std::chrono::milliseconds;

// What the monitor's own probe of a node's PostgreSQL last learned.
enum class ProbeResult {
  unknown,   // not probed yet since the monitor process started
  good,      // a backend answered a query
  refused,   // the host answered that nothing listens: PostgreSQL is not there
  rejected,  // PostgreSQL answered, but with an error (starting up, too many clients, bad credential)
  silent,    // no answer in time
};
std::string_view to_string(ProbeResult result);

struct NodeView {
  NodeId id;
  std::string name;
  std::string host;
  int port{5432};
  int candidate_priority{50};  // 0: never promoted
  bool replication_quorum{true};

  NodeState goal{NodeState::init};
  std::int64_t goal_seq{0};
  NodeState reported{NodeState::init};
  Term reported_term;
  std::int64_t reported_seq{0};

  bool pg_running{false};
  bool pg_responding{false};
  bool streaming{false};
  bool disk_full{false};
  Millis not_streaming_for{0};  // since `streaming` was last seen true, or since the goal was assigned
  Timeline timeline;
  Lsn lsn;
  History history;
  std::int64_t names_version{0};
  UpstreamSight upstream{UpstreamSight::unknown};
  std::string reason;              // the keeper's: why the goal is not reached
  std::optional<NodeId> source;    // fast_forward: where it gets the missing WAL
  std::optional<Account> account;  // heard since the monitor began to learn

  // Ages by the monitor's monotonic clock. They start at 0 when the monitor process starts.
  bool ever_reported{false};  // since the monitor process started
  Millis report_age{0};
  Millis heard_for{0};       // since the first report after its last silence
  bool session_open{false};  // the keeper's session with the monitor's database
  Millis session_closed_for{0};
  ProbeResult probe{ProbeResult::unknown};
  Millis probe_age{0};           // since the probe got its result
  Millis probe_not_good_for{0};  // since the last good one (or since the process started)
  Millis goal_age{0};            // since the goal was assigned
  Millis patience{0};            // its heartbeats come so irregularly that silence means nothing before this age

  // The report belongs to the present goal and has reached it.
  bool converged() const { return reported == goal && reported_seq == goal_seq; }
  bool converged(NodeState state) const { return goal == state && converged(); }
  WalPosition position() const { return effective({timeline, lsn, history}); }
};

enum class RequestKind {
  failover,   // planned when the primary is well, else an election
  promotion,  // of one named node
  drop_node,
  start_maintenance,
  stop_maintenance,
};
std::string_view to_string(RequestKind kind);
std::optional<RequestKind> parse_request_kind(std::string_view text);

// An operator's command, waiting for a decision.
struct Request {
  std::int64_t id{0};
  RequestKind kind{RequestKind::failover};
  std::optional<NodeId> node;
  bool allow_data_loss{false};
  bool allow_failover{false};  // start_maintenance of the primary
  Millis age{0};               // by the monitor's monotonic clock
};

// Timers of the rules; formation settings may change them.
struct Timing {
  Millis unhealthy_after{3000};     // silence of a keeper and of its PostgreSQL before the node counts as lost
  Millis standby_lost_after{3000};  // the same for a standby before its primary is released from waiting for it
  Millis lease{10000};              // a primary's lease, see keeper/fsm/fence.hpp; the monitor waits 1.2 times as long
  Millis drain_timeout{60000};      // a switchover, a fetch of missing WAL or a command not done by then is given up
  Millis preferred_vote{1000};      // an election waits this long for the vote of a node with a higher priority
};

// A list of names, and the primary that it was given to.
struct NamesInForce {
  SyncNames names;
  NodeId by;
  NodeId heir{};  // the last node that was chosen to take over since: it held all that was acknowledged by the list
  friend bool operator==(const NamesInForce&, const NamesInForce&) = default;
};

// Appends, and forgets an equal one that stands before it: the lists that may be in force are a set, and failing
// promotions must not let it grow for ever.
void add_names(std::vector<NamesInForce>& lists, NamesInForce entry);
void set_heir(std::vector<NamesInForce>& lists, NodeId heir);

struct GroupSnapshot {
  std::string formation;
  int group{0};
  int number_sync_standbys{0};
  Term term;
  // Every list of names that may be in force somewhere, oldest first. The last one is the goal: its node has been told
  // to put it in force. When that node confirms (its names_version is ours), the older ones are forgotten. An election
  // must satisfy all of them.
  std::vector<NamesInForce> names;
  std::int64_t names_version{0};
  // The highest timeline that a promotion ordered so far may have begun. WAL of a higher one is not the group's.
  Timeline promised_timeline;
  // The monitor was restored from a backup, or is new to nodes that are at work: what is on record may be old, and
  // nothing is decided before enough nodes have told what they know (rules 601-699).
  bool learning{false};
  std::int64_t peers_version{0};   // grows with each change of the membership
  std::optional<Request> request;  // the oldest that is still undecided
  std::vector<NodeView> nodes;     // by id
  Timing timing;
  // While it learns: milliseconds since 1970 by the monitor's wall clock. No decision depends on it, but the numbers
  // that a monitor without memory begins with: another one before it may have used those that follow what is heard.
  std::int64_t clock{0};

  const NodeView* find(NodeId id) const;
};

}  // namespace pgvigil
