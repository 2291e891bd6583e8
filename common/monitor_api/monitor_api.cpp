#include "common/monitor_api/monitor_api.hpp"

#include <boost/json.hpp>

#include "common/monitor_api/json.hpp"
#include "common/monitor_api/legible.hpp"

namespace pgvigil::monitor_api {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr Millis patience{5000};
// As the view `heartbeat` has it (sql/100_keeper_api.sql), which would refuse the next one.
constexpr std::int64_t in_full_every = 32;
constexpr std::int64_t listeners_at_rest = 32;
constexpr std::chrono::seconds count_again{30};
constexpr std::int64_t restless_listeners = 64;
constexpr std::int64_t places_to_try = 8;
constexpr std::chrono::seconds restless_for{10};  // longer than a failover takes from one report to the next

std::string text(bool value) {
  return value ? "true" : "false";
}

// What report() answers: a goal, and the token by which heartbeats name the report that it is the answer to ("": none).
struct Told {
  Goal goal;
  std::string token;
};

Told parse_told(const std::string& document) {
  try {
    const json::value value = json::parse(document);
    const json::object& object = value.as_object();
    Told told;
    Goal& goal = told.goal;
    goal.state = state_at(object, "state");
    goal.term.value = object.at("term").to_number<std::int64_t>();
    goal.seq = object.at("seq").to_number<std::int64_t>();
    goal.names = names_from(object.at("names"));
    goal.names_version = object.at("names_version").to_number<std::int64_t>();
    goal.peers_version = object.at("peers_version").to_number<std::int64_t>();
    if (const json::value& upstream = object.at("upstream"); !upstream.is_null()) {
      goal.upstream = NodeId{upstream.to_number<std::int64_t>()};
    }
    goal.lease_seconds = object.at("lease_seconds").to_number<int>();
    // Not in the state files of version 0.1.0.
    if (const json::value* timeline = object.if_contains("promised_timeline")) {
      goal.promised_timeline.value = timeline->to_number<std::uint32_t>();
    }
    if (const json::value* number = object.if_contains("number_sync_standbys")) {
      goal.number_sync_standbys = number->to_number<int>();
    }
    if (const json::value* heartbeat = object.if_contains("heartbeat_ms")) {
      goal.heartbeat_ms = heartbeat->to_number<int>();
    }
    if (const json::value* floor = object.if_contains("wal_floor")) {
      const auto lsn = parse_lsn(json::value_to<std::string>(*floor));
      if (!lsn) throw Error("not an LSN");
      goal.wal_floor = *lsn;
    }
    if (goal.term.value < 0 || goal.seq < 0 || goal.lease_seconds < 1) throw Error("a number is out of range");
    if (const json::value* token = object.if_contains("token")) told.token = json::value_to<std::string>(*token);
    return told;
  } catch (const std::exception& error) {
    throw Error(std::string("not a goal: ") + error.what());
  }
}

}  // namespace

Goal parse_goal(const std::string& document) {
  return parse_told(document).goal;
}

asio::awaitable<Registered> register_node(pg::Connection& monitor, Registration registration) {
  std::vector<pg::Param> params;
  params.emplace_back(registration.formation);
  params.emplace_back(std::to_string(registration.group));
  params.emplace_back(registration.name);
  params.emplace_back(registration.host);
  params.emplace_back(std::to_string(registration.port));
  params.emplace_back(registration.dbname);
  params.emplace_back(registration.system_identifier);
  params.emplace_back(std::to_string(registration.candidate_priority));
  params.emplace_back(text(registration.replication_quorum));
  if (registration.known_id) {
    params.emplace_back(std::to_string(registration.known_id->value));
  } else {
    params.emplace_back(std::nullopt);
  }
  const pg::Result row = co_await monitor.query(
      "SELECT * FROM pgvigil.register_node($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", params, patience);
  Registered registered;
  registered.id.value = row.integer(0, "node_id");
  registered.name = row.text(0, "name");
  registered.group = static_cast<int>(row.integer(0, "group_id"));
  registered.goal = parse_goal(row.text(0, "goal"));
  registered.replication_password = row.text(0, "replication_password");
  registered.probe_password = row.text(0, "probe_password");
  co_return registered;
}

std::string keeper_role(NodeId node) {
  return "pgvigil_keeper_" + std::to_string(node.value);
}

asio::awaitable<void> admit_keeper(pg::Connection& monitor, NodeId self, std::string host, int port,
                                   std::string password) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(self.value));
  params.emplace_back(host);
  params.emplace_back(std::to_string(port));
  params.emplace_back(monitor.scram_verifier(keeper_role(self), password));
  co_await monitor.query("SELECT pgvigil.admit_keeper($1, $2, $3, $4)", params, patience);
}

asio::awaitable<Answer> Reporter::tell(pg::Connection& monitor, const Report& report, Millis timeout) {
  const bool known = co_await heartbeat(monitor, report, timeout);
  if (known) co_return answer_;
  token_.clear();
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(report.node.value));
  params.emplace_back(std::string(to_string(report.state)));
  params.emplace_back(std::to_string(report.term.value));
  params.emplace_back(std::to_string(report.goal_seq));
  params.emplace_back(text(report.pg_running));
  params.emplace_back(text(report.pg_responding));
  params.emplace_back(std::to_string(report.timeline.value));
  params.emplace_back(to_string(report.lsn));
  params.emplace_back(std::to_string(report.names_version));
  params.emplace_back(std::string(to_string(report.upstream)));
  params.emplace_back(text(report.streaming));
  params.emplace_back(legible(report.reason));
  params.emplace_back(report.system_identifier);
  params.emplace_back(to_string(report.history));
  params.emplace_back(text(report.disk_full));
  const pg::Result row = co_await monitor.query_prepared(
      "SELECT pgvigil.report($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS goal", params,
      timeout);
  const std::string document = row.text(0, "goal");
  stands_ = report;
  answer_ = Answer{};
  // jsonb prints these two in exactly this way.
  if (document == R"({"tell": true})") {
    answer_.kind = Answer::Kind::tell;
  } else if (document == R"({"wait": true})") {
    answer_.kind = Answer::Kind::wait;
  } else {
    Told told = parse_told(document);
    answer_.goal = std::move(told.goal);
    token_ = std::move(told.token);
  }
  co_return answer_;
}

asio::awaitable<bool> Reporter::heartbeat(pg::Connection& monitor, const Report& report, Millis timeout) {
  if (token_.empty()) co_return false;
  stands_.lsn = report.lsn;
  if (stands_ != report) co_return false;
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(report.node.value));
  params.emplace_back(token_);
  params.emplace_back(to_string(report.lsn));
  const pg::Result row = co_await monitor.query_prepared(
      "UPDATE pgvigil.heartbeat SET report_count = report_count + 1, reported_at = now(), lsn = $3 "
      "WHERE node_id = $1 AND token = $2 RETURNING report_count",
      params, timeout);
  if (row.rows() == 0) co_return false;
  if (row.integer(0, "report_count") % in_full_every == 0) token_.clear();
  co_return true;
}

asio::awaitable<void> tell(pg::Connection& monitor, Identity identity, Account account) {
  const Registration& node = identity.node;
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(node.known_id.value_or(NodeId{}).value));
  params.emplace_back(node.formation);
  params.emplace_back(std::to_string(node.group));
  params.emplace_back(node.name);
  params.emplace_back(node.host);
  params.emplace_back(std::to_string(node.port));
  params.emplace_back(node.dbname);
  params.emplace_back(std::to_string(node.candidate_priority));
  params.emplace_back(text(node.replication_quorum));
  params.emplace_back(node.system_identifier);
  params.emplace_back(identity.replication_password);
  params.emplace_back(identity.probe_password);
  params.emplace_back(to_json(account));
  co_await monitor.query("SELECT pgvigil.tell($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::jsonb)", params,
                         patience);
}

asio::awaitable<void> tell_moments(pg::Connection& monitor, NodeId self, Term term, std::vector<moments::Moment> told) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(self.value));
  params.emplace_back(std::to_string(term.value));
  params.emplace_back(json::serialize(moments_array(told)));
  co_await monitor.query("SELECT pgvigil.tell_moments($1, $2, $3::jsonb)", params, patience);
}

asio::awaitable<std::vector<Peer>> get_peers(pg::Connection& monitor, NodeId self, std::int64_t at_least) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(self.value));
  params.emplace_back(std::to_string(at_least));
  const pg::Result rows = co_await monitor.query("SELECT * FROM pgvigil.get_peers($1, $2)", params, patience);
  std::vector<Peer> peers;
  for (int row = 0; row < rows.rows(); ++row) {
    Peer peer;
    peer.id.value = rows.integer(row, "id");
    peer.name = rows.text(row, "name");
    peer.host = rows.text(row, "host");
    peer.port = static_cast<int>(rows.integer(row, "port"));
    peer.is_primary = rows.boolean(row, "is_primary");
    peer.sslmode = rows.text(row, "sslmode");
    peers.push_back(peer);
  }
  co_return peers;
}

asio::awaitable<bool> say_sslmode(pg::Connection& monitor, NodeId self, std::string sslmode) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(self.value));
  params.emplace_back(sslmode);
  const pg::Result row = co_await monitor.query("SELECT pgvigil.say_sslmode($1, $2) AS heard", params, patience);
  co_return row.boolean(0, "heard");
}

asio::awaitable<std::int64_t> step_down(pg::Connection& monitor, NodeId self) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(self.value));
  const pg::Result row = co_await monitor.query("SELECT pgvigil.step_down($1) AS request", params, patience);
  co_return row.integer(0, "request");
}

asio::awaitable<RequestStatus> request_status(pg::Connection& monitor, std::int64_t request) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(request));
  const pg::Result row = co_await monitor.query("SELECT * FROM pgvigil.request_status($1)", params, patience);
  RequestStatus status;
  status.status = row.text(0, "status");
  status.message = row.text(0, "message");
  co_return status;
}

asio::awaitable<void> Attention::open(pg::Connection& monitor, NodeId self, Millis timeout) {
  self_ = self;
  channel_ = "pgvigil_node_" + std::to_string(self.value);
  // Those of one group are restless together, and neighbours by number.
  place_ = self.value * 29 % restless_listeners;
  always_ = co_await few(monitor, timeout);
  if (always_) co_await monitor.query("LISTEN " + channel_, {}, timeout);
}

// Opens the session, which may be open already, and counts them.
asio::awaitable<bool> Attention::few(pg::Connection& monitor, Millis timeout) {
  const std::string sql = "SELECT pgvigil.open_session(" + std::to_string(self_.value) + ") AS open";
  const pg::Result row = co_await monitor.query(sql, {}, timeout);
  counted_at_ = std::chrono::steady_clock::now();
  co_return row.integer(0, "open") <= listeners_at_rest;
}

asio::awaitable<bool> Attention::after(pg::Connection& monitor, const Report& report, const Goal& goal) {
  const auto now = std::chrono::steady_clock::now();
  const Said said{report.state,         report.term,     report.goal_seq,  report.pg_running, report.pg_responding,
                  report.names_version, report.upstream, report.streaming, report.disk_full};
  if (said_ && *said_ != said) restless_until_ = now + restless_for;
  said_ = said;
  if (always_ && now - counted_at_ >= count_again) {
    always_ = co_await few(monitor, patience);
    if (!always_) co_await monitor.query("UNLISTEN " + channel_, {}, patience);
  }
  if (always_) co_return false;
  const bool arrived = report.state == goal.state && report.goal_seq == goal.seq;
  const bool wanted = !arrived || now < restless_until_;
  if (wanted == listening_) co_return false;
  if (wanted) co_return co_await listen(monitor);
  co_await unlisten(monitor);
  co_return false;
}

asio::awaitable<bool> Attention::listen(pg::Connection& monitor) {
  const std::string sql = "LISTEN " + channel_ + "; SELECT place FROM (SELECT i % " +
                          std::to_string(restless_listeners) + " AS place FROM generate_series(" +
                          std::to_string(place_) + ", " + std::to_string(place_ + places_to_try - 1) +
                          ") AS i OFFSET 0) AS p WHERE pgvigil.take_place(place) LIMIT 1";
  const pg::Result rows = co_await monitor.query(sql, {}, patience);
  listening_ = rows.rows() == 1;
  // Others with the next report.
  place_ = listening_ ? rows.integer(0, "place") : (place_ + places_to_try) % restless_listeners;
  if (!listening_) co_await monitor.query("UNLISTEN " + channel_, {}, patience);
  co_return listening_;
}

asio::awaitable<void> Attention::unlisten(pg::Connection& monitor) {
  const std::string sql = "UNLISTEN " + channel_ + "; SELECT pgvigil.leave_place(" + std::to_string(place_) + ")";
  co_await monitor.query(sql, {}, patience);
  listening_ = false;
}

}  // namespace pgvigil::monitor_api
