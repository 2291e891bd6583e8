#include <boost/json.hpp>
#include <charconv>
#include <unordered_set>

#include "common/monitor_api/json.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr pg::Millis patience{5000};

std::vector<NamesInForce> parse_names(const std::string& document) {
  std::vector<NamesInForce> lists;
  const json::value value = json::parse(document);
  for (const json::value& item : value.as_array()) {
    const json::object& object = item.as_object();
    NamesInForce entry;
    entry.names = monitor_api::names_from(item);
    entry.by.value = object.at("by").to_number<std::int64_t>();
    if (const json::value* heir = object.if_contains("heir")) entry.heir.value = heir->to_number<std::int64_t>();
    lists.push_back(std::move(entry));
  }
  return lists;
}

NodeState state_of(const pg::Result& rows, int row, std::string_view column) {
  const std::string word = rows.text(row, column);
  const auto state = parse_node_state(word);
  if (!state) throw Error("an unknown state: " + word);
  return *state;
}

NodeView node_of(const pg::Result& rows, int row) {
  NodeView node;
  node.id.value = rows.integer(row, "id");
  node.name = rows.text(row, "name");
  node.host = rows.text(row, "host");
  node.port = static_cast<int>(rows.integer(row, "port"));
  node.candidate_priority = static_cast<int>(rows.integer(row, "candidate_priority"));
  node.replication_quorum = rows.boolean(row, "replication_quorum");
  node.goal = state_of(rows, row, "goal_state");
  node.goal_seq = rows.integer(row, "goal_seq");
  node.reported = state_of(rows, row, "reported_state");
  node.reported_term.value = rows.integer(row, "reported_term");
  node.reported_seq = rows.integer(row, "reported_seq");
  node.names_version = rows.integer(row, "names_version");
  node.pg_running = rows.boolean(row, "pg_running");
  node.pg_responding = rows.boolean(row, "pg_responding");
  node.streaming = rows.boolean(row, "streaming");
  node.timeline.value = static_cast<std::uint32_t>(rows.integer(row, "timeline"));
  node.lsn = parse_lsn(rows.text(row, "lsn")).value_or(Lsn{});
  node.disk_full = rows.boolean(row, "disk_full");
  node.history = parse_history(rows.text(row, "history")).value_or(History{});
  node.reason = rows.text(row, "reason");
  if (rows.maybe(row, "source_id")) node.source = NodeId{rows.integer(row, "source_id")};
  if (const auto account = rows.maybe(row, "account")) node.account = monitor_api::parse_account(*account);
  node.upstream = parse_upstream_sight(rows.text(row, "upstream")).value_or(UpstreamSight::unknown);
  return node;
}

std::optional<Request> request_of(const pg::Result& rows) {
  if (rows.rows() == 0) return std::nullopt;
  const auto kind = parse_request_kind(rows.text(0, "kind"));
  if (!kind) throw Error("an unknown request: " + rows.text(0, "kind"));
  Request request;
  request.id = rows.integer(0, "id");
  request.kind = *kind;
  if (rows.maybe(0, "node_id")) request.node = NodeId{rows.integer(0, "node_id")};
  request.allow_data_loss = rows.boolean(0, "allow_data_loss");
  request.allow_failover = rows.boolean(0, "allow_failover");
  return request;
}

std::vector<std::int64_t> numbers(const std::string& text) {
  std::vector<std::int64_t> values;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end) {
    std::int64_t value = 0;
    const auto parsed = std::from_chars(at, end, value);
    if (parsed.ec != std::errc{}) throw Error("the monitor's database: not a list of numbers");
    values.push_back(value);
    at = parsed.ptr;
    while (at != end && *at == ' ') ++at;
  }
  return values;
}

// Before nodes_sql, as a statement of its own. In one, who waits for a report that is being stored gets that report's
// state of the node beside the LSN of the report before: PostgreSQL reads again what was locked, not what it is joined
// with.
constexpr const char* lock_nodes_sql =
    "SELECT FROM pgvigil.node WHERE formation = $1 AND group_id = $2 ORDER BY id FOR UPDATE";
constexpr const char* nodes_sql = R"(
  SELECT n.*, coalesce(r.pg_running, false) AS pg_running, coalesce(r.pg_responding, false) AS pg_responding,
         coalesce(r.streaming, false) AS streaming, coalesce(r.timeline, 0) AS timeline, coalesce(r.lsn, '0/0') AS lsn,
         coalesce(r.upstream, 'unknown') AS upstream, coalesce(r.history, '') AS history, coalesce(r.reason, '') AS reason,
         coalesce(r.disk_full, false) AS disk_full
  FROM pgvigil.node n LEFT JOIN pgvigil.node_report r ON r.node_id = n.id
  WHERE n.formation = $1 AND n.group_id = $2 ORDER BY n.id)";

// Of a group: what is wrong in one concerns no other.
template <class Parse>
auto readable(Parse parse) {
  try {
    return parse();
  } catch (const std::exception& error) {
    throw UnreadableGroup(std::string("what the monitor's database holds of it: ") + error.what());
  }
}

}  // namespace

asio::awaitable<std::vector<fsm::Heard>> hear(pg::Connection& database) {
  // Two lists of numbers in one row: rows and columns of thousands of nodes, ten times a second, would cost more.
  static const std::string sql =
      "SELECT (SELECT string_agg(n.id || ' ' || coalesce(r.report_count, 0), ' ') FROM pgvigil.node n "
      "LEFT JOIN pgvigil.node_report r ON r.node_id = n.id) AS counts, "
      "(SELECT string_agg(objid::text, ' ') FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
      "AND classid = " +
      std::to_string(monitor_api::session_lock_class) +
      " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS sessions";
  const pg::Result row = co_await database.query_prepared(sql, {}, patience);
  const std::vector<std::int64_t> sessions = numbers(row.text(0, "sessions"));
  const std::unordered_set<std::int64_t> open(sessions.begin(), sessions.end());
  const std::vector<std::int64_t> counts = numbers(row.text(0, "counts"));
  std::vector<fsm::Heard> heard;
  heard.reserve(counts.size() / 2);
  for (std::size_t i = 0; i + 1 < counts.size(); i += 2) {
    const bool session_open = open.contains(counts[i]);
    heard.push_back({NodeId{counts[i]}, counts[i + 1], session_open});
  }
  co_return heard;
}

asio::awaitable<std::map<NodeId, GroupKey>> load_groups(pg::Connection& database) {
  const pg::Result rows = co_await database.query("SELECT id, formation, group_id FROM pgvigil.node", {}, patience);
  std::map<NodeId, GroupKey> groups;
  for (int row = 0; row < rows.rows(); ++row) {
    const NodeId node{rows.integer(row, "id")};
    groups[node] = GroupKey{rows.text(row, "formation"), static_cast<int>(rows.integer(row, "group_id"))};
  }
  co_return groups;
}

asio::awaitable<std::optional<GroupSnapshot>> lock_and_load(pg::Connection& database, GroupKey key,
                                                            std::optional<pg::Millis> longest_wait) {
  std::string begin = "BEGIN";
  if (longest_wait) begin += "; SET LOCAL lock_timeout = " + std::to_string(longest_wait->count());
  co_await database.query(begin, {}, patience);
  std::vector<pg::Param> params;
  params.emplace_back(key.formation);
  params.emplace_back(std::to_string(key.group));
  // A statement of its own, like lock_nodes_sql: settings that are changed while it waits are those that count.
  co_await database.query_prepared("SELECT FROM pgvigil.grp WHERE formation = $1 AND group_id = $2 FOR UPDATE", params,
                                   patience);
  const pg::Result group = co_await database.query_prepared(
      "SELECT g.*, f.number_sync_standbys, f.unhealthy_ms, f.standby_lost_ms, f.lease_ms, f.drain_ms, f.vote_ms FROM "
      "pgvigil.grp "
      "g "
      "JOIN pgvigil.formation f ON f.name = g.formation WHERE g.formation = $1 AND g.group_id = $2",
      params, patience);
  if (group.rows() == 0) {
    co_await rollback(database);
    co_return std::nullopt;
  }
  GroupSnapshot snapshot;
  snapshot.formation = key.formation;
  snapshot.group = key.group;
  snapshot.number_sync_standbys = static_cast<int>(group.integer(0, "number_sync_standbys"));
  snapshot.term.value = group.integer(0, "term");
  snapshot.names = readable([&] { return parse_names(group.text(0, "names_in_force")); });
  snapshot.learning = group.boolean(0, "learning");
  if (snapshot.learning) {
    const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
    snapshot.clock = std::chrono::duration_cast<Millis>(since_1970).count();
  }
  snapshot.peers_version = group.integer(0, "peers_version");
  snapshot.names_version = group.integer(0, "names_version");
  snapshot.promised_timeline.value = static_cast<std::uint32_t>(group.integer(0, "timeline"));
  snapshot.timing.unhealthy_after = Millis{group.integer(0, "unhealthy_ms")};
  snapshot.timing.standby_lost_after = Millis{group.integer(0, "standby_lost_ms")};
  snapshot.timing.lease = Millis{group.integer(0, "lease_ms")};
  snapshot.timing.preferred_vote = Millis{group.integer(0, "vote_ms")};
  snapshot.timing.drain_timeout = Millis{group.integer(0, "drain_ms")};
  co_await database.query_prepared(lock_nodes_sql, params, patience);
  const pg::Result nodes = co_await database.query_prepared(nodes_sql, params, patience);
  for (int row = 0; row < nodes.rows(); ++row) snapshot.nodes.push_back(readable([&] { return node_of(nodes, row); }));
  const pg::Result request = co_await database.query_prepared(
      "SELECT * FROM pgvigil.request WHERE formation = $1 AND group_id = $2 AND status = 'pending' ORDER BY id LIMIT 1",
      params, patience);
  snapshot.request = readable([&] { return request_of(request); });
  co_return snapshot;
}

}  // namespace pgvigil::monitor
