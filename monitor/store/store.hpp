// The monitor process's side of the schema: reads consistent pictures of groups, applies decisions.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "common/model/group.hpp"
#include "common/pg/connection.hpp"
#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/explain.hpp"
#include "monitor/fsm/liveness.hpp"
#include "monitor/moments/recorder.hpp"

namespace pgvigil::monitor {

struct GroupKey {
  std::string formation;
  int group{0};
  friend auto operator<=>(const GroupKey&, const GroupKey&) = default;
};

// What the database holds of one group cannot be made sense of.
class UnreadableGroup : public Error {
 public:
  using Error::Error;
};

// Creates or migrates the schema in one transaction (advisory-locked). Throws UserError(monitor) when the schema is
// newer than this program. `ours_alone`: nobody else uses the database, and PUBLIC loses what it could do there.
boost::asio::awaitable<void> migrate(pg::Connection& database, bool ours_alone);

// What changes all the time, of every node: one cheap query, run on every tick.
boost::asio::awaitable<std::vector<fsm::Heard>> hear(pg::Connection& database);
boost::asio::awaitable<std::map<NodeId, GroupKey>> load_groups(pg::Connection& database);

// Opens a transaction and locks the group's row, loads everything that is durable. The ages, probe results and
// `session_open` of the nodes are left at their defaults: the service fills them in. nullopt when the group has gone
// (the transaction is then closed). `longest_wait`: for each lock, of this transaction; nullopt: as long as the session
// waits for any. SqlError 55P03: it was not to be had; the transaction has failed, and is still open. UnreadableGroup:
// it is still open as well.
boost::asio::awaitable<std::optional<GroupSnapshot>> lock_and_load(pg::Connection& database, GroupKey key,
                                                                   std::optional<pg::Millis> longest_wait);
// Applies one decision inside that transaction: goals, term, names, events, removals, the request's outcome; NOTIFYs
// the keepers and watchers. Returns the database's new generation.
boost::asio::awaitable<std::int64_t> apply(pg::Connection& database, const GroupSnapshot& group,
                                           const fsm::Decision& decision);
// As the table of groups holds them.
std::string names_json(const std::vector<NamesInForce>& lists);
// Replaces what `show why` reads; a text that stays keeps its beginning.
boost::asio::awaitable<void> store_explanations(pg::Connection& database, const GroupSnapshot& group,
                                                const std::vector<fsm::Explanation>& explanations);
// An event, with what a person can do.
boost::asio::awaitable<void> tell_of_wait(pg::Connection& database, const GroupSnapshot& group,
                                          const fsm::Explanation& why);
// How a failover went (sql/110_moments.sql).
boost::asio::awaitable<void> store_story(pg::Connection& database, const GroupSnapshot& group, const Story& story);
boost::asio::awaitable<void> commit(pg::Connection& database);
boost::asio::awaitable<void> rollback(pg::Connection& database);

struct Blocker {
  std::int64_t pid{0};
  std::string role;
  std::string state;  // as pg_stat_activity has it
  // A session of a keeper or an operator that lies idle in a transaction, or runs one statement for more than 5 s,
  // where the role that asks may end it: no honest one does. Everybody else's is only told of.
  bool to_end{false};

  bool operator<(const Blocker& other) const { return std::tie(pid, to_end) < std::tie(other.pid, other.to_end); }
};
// For whom the backend `waiting` waits at this moment. Ends those of `announced` that still are to be ended: once the
// last one is gone the wait is over, and whoever ran this beside the wait has no time left to tell of it.
boost::asio::awaitable<std::vector<Blocker>> end_blockers(pg::Connection& other, std::int64_t waiting,
                                                          const std::set<Blocker>& announced);

}  // namespace pgvigil::monitor
