// Simulated histories whose store is two at once: the model (store.cpp) and the monitor's real database, by the real
// functions of sql/ and the real code of monitor/store. Whatever the model is asked for is asked of the database, too,
// and what both answer and hold is compared every time. What the simulator proves, it proves of sql/ only as far as
// this holds.
#include <boost/asio.hpp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "common/monitor_api/json.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/pg/connection.hpp"
#include "monitor/store/store.hpp"
#include "tests/simulation/world.hpp"

namespace asio = boost::asio;
using namespace pgvigil;
using namespace pgvigil::simulation;

namespace {

const monitor::GroupKey group_key{"default", 0};

std::string number(std::int64_t value) {
  return std::to_string(value);
}

std::string boolean(bool value) {
  return value ? "true" : "false";
}

std::string name_of(NodeId id) {
  return "n" + number(id.value);
}

std::string host_of(NodeId id) {
  return name_of(id) + ".example";
}

monitor_api::Registration registration_of(NodeId id, int priority, bool quorum) {
  monitor_api::Registration node;
  node.name = name_of(id);
  node.host = host_of(id);
  node.candidate_priority = priority;
  node.replication_quorum = quorum;
  return node;
}

std::string text(const SyncNames& names) {
  std::string all = number(names.required) + " of";
  const std::set<NodeId> sorted(names.members.begin(), names.members.end());
  for (const NodeId id : sorted) all += " " + number(id.value);
  return all;
}

// The model's members have no names and no hosts.
Account bare(Account account) {
  for (Peer& peer : account.peers) peer = Peer{peer.id, "", "", 0, peer.is_primary, ""};
  return account;
}

Account named(Account account) {
  for (Peer& peer : account.peers) {
    peer.name = name_of(peer.id);
    peer.host = host_of(peer.id);
    peer.port = 5432;
  }
  return account;
}

// The floor of the WAL and the heartbeat are not modelled.
std::string text(const Goal& goal) {
  return std::string(to_string(goal.state)) + " term " + number(goal.term.value) + " seq " + number(goal.seq) +
         " names " + text(goal.names) + " v" + number(goal.names_version) + " peers v" + number(goal.peers_version) +
         " upstream " + number(goal.upstream.value_or(NodeId{}).value) + " lease " + number(goal.lease_seconds) +
         " timeline " + number(goal.promised_timeline.value) + " nss " + number(goal.number_sync_standbys);
}

std::string text(const NodeView& node) {
  std::string all = name_of(node.id) + " priority " + number(node.candidate_priority) +
                    (node.replication_quorum ? " quorum" : "") + " goal " + std::string(to_string(node.goal)) + " " +
                    number(node.goal_seq) + " reported " + std::string(to_string(node.reported)) + " " +
                    number(node.reported_term.value) + "/" + number(node.reported_seq) + " names v" +
                    number(node.names_version) + (node.pg_running ? " running" : "") +
                    (node.pg_responding ? " responding" : "") + (node.streaming ? " streaming" : "") +
                    (node.disk_full ? " full" : "") + " at " + number(node.timeline.value) + ":" + to_string(node.lsn) +
                    " history " + to_string(node.history) + " upstream " + std::string(to_string(node.upstream)) +
                    " source " + number(node.source.value_or(NodeId{}).value) + " reason '" + node.reason + "'";
  if (node.account) all += " account " + monitor_api::to_json(bare(*node.account));
  return all;
}

std::string text(const GroupSnapshot& group) {
  std::string all = "term " + number(group.term.value) + " names v" + number(group.names_version) + " peers v" +
                    number(group.peers_version) + " timeline " + number(group.promised_timeline.value) +
                    (group.learning ? " learning" : "") + " nss " + number(group.number_sync_standbys) + " lease " +
                    number(group.timing.lease.count());
  for (const NamesInForce& entry : group.names) {
    all += "\n  " + text(entry.names) + " by " + number(entry.by.value) + " heir " + number(entry.heir.value);
  }
  if (group.request) {
    const Request& request = *group.request;
    all += "\n  request " + std::string(to_string(request.kind)) + " " + number(request.node.value_or(NodeId{}).value) +
           (request.allow_data_loss ? " data loss" : "") + (request.allow_failover ? " failover" : "");
  }
  // The model registers them in any order.
  std::map<NodeId, std::string> sorted;
  for (const NodeView& node : group.nodes) sorted[node.id] = text(node);
  for (const auto& [id, its] : sorted) all += "\n  " + its;
  return all;
}

class Difference : public Error {
 public:
  Difference(const std::string& when, const std::string& model, const std::string& sql)
      : Error("after " + when + "\nthe model has " + model + "\nsql/ has     " + sql) {}
};

// One session, used by a thread that waits.
class Database {
 public:
  explicit Database(const std::string& conninfo)
      : session_(wait(pg::Connection::connect(conninfo, pg::Millis{5000}))) {}

  template <typename T>
  T wait(asio::awaitable<T> task) {
    std::optional<T> value;
    const auto body = [&]() -> asio::awaitable<void> { value.emplace(co_await std::move(task)); };
    wait(body());
    return std::move(*value);
  }
  void wait(asio::awaitable<void> task) {
    std::exception_ptr failure;
    asio::co_spawn(context_, std::move(task), [&failure](std::exception_ptr error) { failure = error; });
    context_.restart();
    context_.run();
    if (failure) std::rethrow_exception(failure);
  }
  pg::Result query(std::string sql, std::vector<pg::Param> params = {}) {
    return wait(session_.query(std::move(sql), std::move(params)));
  }
  pg::Connection& session() { return session_; }

 private:
  asio::io_context context_{1};
  pg::Connection session_;
};

class ComparedStore : public Store {
 public:
  explicit ComparedStore(Database& database) : database_(database) {
    database_.query("ROLLBACK");  // what an error in the history before has left
    write(*this);
  }

  Reported report(const Report& report) override {
    write_settings();
    const Reported model = Store::report(report);
    monitor_api::Reporter& reporter = reporters_[report.node.value];
    if (++reports_ % 4 == 0) reporter.in_full();
    const monitor_api::Answer answer = database_.wait(reporter.tell(database_.session(), report, pg::Millis{5000}));
    const std::string what = "a report of node " + number(report.node.value) + " (" +
                             std::string(to_string(report.state)) + " " + number(report.term.value) + "/" +
                             number(report.goal_seq) + ")";
    compare_answers(what, model, answer);
    ++counts_[model.answer == Answer::goal   ? "reports"
              : model.answer == Answer::tell ? "reports of what is unknown"
                                             : "reports while it learns"];
    compare(what);
    return model;
  }

  Reported tell(NodeId id, int priority, bool quorum, const std::string& its_system, const Account& account) override {
    write_settings();
    const Reported model = Store::tell(id, priority, quorum, its_system, account);
    monitor_api::Identity identity;
    identity.node = registration_of(id, priority, quorum);
    identity.node.system_identifier = its_system;
    identity.node.known_id = id;
    identity.replication_password = "replication";
    identity.probe_password = "probe";
    const std::string what = "what node " + number(id.value) + " tells: " + monitor_api::to_json(bare(account));
    const bool believed = model.answer != Answer::refused;
    const bool sql =
        accepted([&] { database_.wait(monitor_api::tell(database_.session(), identity, named(account))); });
    ++counts_[believed ? "accounts" : "accounts refused"];
    compare_outcomes(what, believed, sql);
    return model;
  }

  void restore(const Store& then) override {
    Store::restore(then);
    write(then);
    if (!then.group.nodes.empty()) database_.query("SELECT pgvigil.lose_memory('default', 0, 'an old backup')");
    ++counts_["restores"];
    compare("a backup was put back");
  }

  bool add_node(NodeId id, int priority, bool quorum) override {
    // A new monitor, of which nobody has heard, would begin another group.
    if (group.learning && group.nodes.empty()) return Store::add_node(id, priority, quorum);
    write_settings();
    const bool model = Store::add_node(id, priority, quorum);
    const auto node = registration_of(id, priority, quorum);
    database_.query("SELECT setval('pgvigil.node_id_seq', $1, false)", {number(id.value)});
    const bool sql = accepted([&] { database_.wait(monitor_api::register_node(database_.session(), node)); });
    ++counts_[model ? "registrations" : "registrations refused"];
    compare_outcomes("node " + number(id.value) + " is to be added", model, sql);
    return model;
  }

  bool ask(RequestKind kind, std::optional<NodeId> node, bool allow) override {
    write_settings();
    const bool model = Store::ask(kind, node, allow);
    std::vector<pg::Param> params{std::string(to_string(kind))};
    params.emplace_back(node ? pg::Param(number(node->value)) : std::nullopt);
    params.emplace_back(boolean(allow && kind == RequestKind::failover));
    params.emplace_back(boolean(allow && kind == RequestKind::start_maintenance));
    const bool sql = accepted([&] { database_.query("SELECT pgvigil.ask('default', 0, $1, $2, $3, $4)", params); });
    ++counts_[model ? "requests" : "requests refused"];
    compare_outcomes("a request: " + std::string(to_string(kind)), model, sql);
    return model;
  }

  void remove_by_force(NodeId id) override {
    write_settings();
    Store::remove_by_force(id);
    database_.query("SELECT pgvigil.remove_node($1, true)", {number(id.value)});
    ++counts_["removals by force"];
    compare("the removal of node " + number(id.value));
  }

  void apply(const fsm::Decision& decision) override {
    write_settings();
    Store::apply(decision);
    const auto snapshot = database_.wait(monitor::lock_and_load(database_.session(), group_key, std::nullopt));
    if (!snapshot) throw Difference("a decision", "a group", "none");
    database_.wait(monitor::apply(database_.session(), *snapshot, decision));
    database_.wait(monitor::commit(database_.session()));
    ++counts_["decisions"];
    compare("rule " + number(decision.rule) + " " + std::string(decision.rule_name));
  }

  // A crash of its PostgreSQL.
  void forget_reports() override {
    write_settings();
    Store::forget_reports();
    database_.query("TRUNCATE pgvigil.node_report");
    ++counts_["crashes"];
    compare("a crash");
  }

  // How often what was compared.
  static const std::map<std::string, std::int64_t>& counts() { return counts_; }

 private:
  template <typename Call>
  static bool accepted(Call call) {
    try {
      call();
      return true;
    } catch (const pg::SqlError& error) {
      if (!error.sqlstate.starts_with("PV")) throw;
      return false;
    }
  }

  using Settings = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  static Settings settings_of(const GroupSnapshot& group) {
    const Timing& timing = group.timing;
    return {group.number_sync_standbys, timing.unhealthy_after.count(), timing.standby_lost_after.count(),
            timing.lease.count(), timing.preferred_vote.count()};
  }

  // What the simulator changes by itself, as an operator's `set` does.
  void write_settings() {
    const Settings now = settings_of(group);
    if (now != settings_) {
      const auto& [nss, unhealthy, lost, lease, vote] = now;
      database_.query(
          "UPDATE pgvigil.formation SET number_sync_standbys = $1, unhealthy_ms = $2, standby_lost_ms = $3, "
          "lease_ms = $4, vote_ms = $5, heartbeat_ms = 250",
          {number(nss), number(unhealthy), number(lost), number(lease), number(vote)});
      database_.query("SELECT pgvigil.formation_changed('default')");
      settings_ = now;
    }
    for (const NodeView& node : group.nodes) {
      const std::pair<int, bool> own{node.candidate_priority, node.replication_quorum};
      const auto known = of_nodes_.find(node.id.value);
      if (known != of_nodes_.end() && known->second == own) continue;
      database_.query("UPDATE pgvigil.node SET candidate_priority = $2, replication_quorum = $3 WHERE id = $1",
                      {number(node.id.value), number(own.first), boolean(own.second)});
      of_nodes_[node.id.value] = own;
    }
  }

  // Nothing else is in the database than this.
  void write(const Store& store) {
    database_.query("TRUNCATE pgvigil.grp, pgvigil.removed_node, pgvigil.request, pgvigil.event CASCADE");
    // An empty database has other passwords than the nodes have heard of.
    const std::string strange = store.group.nodes.empty() ? "strange " : "";
    database_.query("UPDATE pgvigil.formation SET replication_password = $1, probe_password = $2",
                    {strange + "replication", strange + "probe"});
    reporters_.clear();
    of_nodes_.clear();
    settings_ = Settings{};
    write_settings();
    if (store.group.nodes.empty()) return;
    database_.query(
        "INSERT INTO pgvigil.grp (formation, group_id, term, names_version, peers_version, timeline, "
        "system_identifier, names_in_force) VALUES ('default', 0, $1, $2, $3, $4, nullif($5, '')::numeric, $6::jsonb)",
        {number(store.group.term.value), number(store.group.names_version), number(store.peers_version),
         number(store.group.promised_timeline.value), store.system, monitor::names_json(store.group.names)});
    for (const NodeView& node : store.group.nodes) {
      database_.query(
          "INSERT INTO pgvigil.node (id, formation, group_id, name, host, port, candidate_priority, "
          "replication_quorum, goal_state, goal_seq, reported_state, reported_term, reported_seq, names_version, "
          "source_id) OVERRIDING SYSTEM VALUE VALUES ($1, 'default', 0, $2, $3, 5432, $4, $5, $6, $7, $8, $9, $10, "
          "$11, $12)",
          {number(node.id.value), name_of(node.id), host_of(node.id), number(node.candidate_priority),
           boolean(node.replication_quorum), std::string(to_string(node.goal)), number(node.goal_seq),
           std::string(to_string(node.reported)), number(node.reported_term.value), number(node.reported_seq),
           number(node.names_version), node.source ? pg::Param(number(node.source->value)) : std::nullopt});
    }
    for (const std::int64_t id : store.removed) {
      database_.query("INSERT INTO pgvigil.removed_node (node_id, formation, name) VALUES ($1, 'default', 'gone')",
                      {number(id)});
    }
    if (store.group.request) {
      const Request& request = *store.group.request;
      database_.query(
          "INSERT INTO pgvigil.request (formation, group_id, kind, node_id, allow_data_loss, allow_failover) "
          "VALUES ('default', 0, $1, $2, $3, $4)",
          {std::string(to_string(request.kind)), request.node ? pg::Param(number(request.node->value)) : std::nullopt,
           boolean(request.allow_data_loss), boolean(request.allow_failover)});
    }
  }

  static void compare_answers(const std::string& what, const Reported& model, const monitor_api::Answer& sql) {
    const auto words = [](bool tell, bool wait, const Goal& goal) {
      return tell ? std::string("'tell'") : wait ? std::string("'wait'") : text(goal);
    };
    const std::string expected = words(model.answer == Answer::tell, model.answer == Answer::wait, model.goal);
    const std::string found =
        words(sql.kind == monitor_api::Answer::Kind::tell, sql.kind == monitor_api::Answer::Kind::wait, sql.goal);
    if (expected != found) throw Difference(what + ", as the answer,", expected, found);
  }

  void compare_outcomes(const std::string& what, bool model, bool sql) {
    if (model != sql) throw Difference(what, model ? "accepted it" : "refused it", sql ? "accepted it" : "refused it");
    compare(what);
  }

  void compare(const std::string& what) {
    const auto snapshot = database_.wait(monitor::lock_and_load(database_.session(), group_key, std::nullopt));
    if (snapshot) database_.wait(monitor::rollback(database_.session()));
    // A group without nodes is none: there may be a row of it, or not.
    if (group.nodes.empty() && (!snapshot || snapshot->nodes.empty())) return;
    GroupSnapshot model = group;
    model.peers_version = peers_version;
    const std::string expected = text(model);
    const std::string found = snapshot ? text(*snapshot) : "no group";
    if (expected != found) throw Difference(what, expected, found);
    for (const NodeView& node : group.nodes)
      of_nodes_[node.id.value] = {node.candidate_priority, node.replication_quorum};
    settings_ = settings_of(group);
  }

  inline static std::map<std::string, std::int64_t> counts_;
  Database& database_;
  std::map<std::int64_t, monitor_api::Reporter> reporters_;
  std::int64_t reports_{0};
  Settings settings_;
  std::map<std::int64_t, std::pair<int, bool>> of_nodes_;  // priority, quorum: as the database has them
};

// One history in six has a monitor that loses its memory, and there is most to compare.
bool puts_back(std::uint64_t seed) {
  const Plan plan = draw_plan(seed);
  return std::any_of(plan.faults.begin(), plan.faults.end(),
                     [](const Fault& fault) { return fault.kind == FaultKind::restore_monitor; });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::printf(
        "usage: %s CONNINFO HISTORIES [SEED]    (the database of a monitor that does not run; it is overwritten)\n",
        argv[0]);
    return 2;
  }
  const std::int64_t histories = std::atoll(argv[2]);
  std::uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
  std::int64_t failed = 0;
  Database database(argv[1]);
  for (std::int64_t i = 0; i < histories; ++i, ++seed) {
    while (i % 2 == 1 && !puts_back(seed)) ++seed;
    std::string problem;
    try {
      problem = World(seed, false, {}, std::make_unique<ComparedStore>(database)).run().violation;
    } catch (const std::exception& error) {
      problem = error.what();
    }
    if (problem.empty()) continue;
    ++failed;
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), problem.c_str());
  }
  for (const auto& [what, count] : ComparedStore::counts()) {
    std::printf("%8lld %s\n", static_cast<long long>(count), what.c_str());
  }
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(histories - failed), static_cast<long long>(failed));
  return failed > 0 ? 1 : 0;
}
