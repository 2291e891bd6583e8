// A fleet of simulated keepers for the measurement of a monitor: real sessions, real reports once a heartbeat through
// the daemon's own calls, and no PostgreSQL behind them (fake_postgres.hpp answers the probes).
// tests/bench/fleet starts the monitor and reads what is printed here: one line of JSON for each phase.
#include <algorithm>
#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <boost/program_options.hpp>
#include <deque>
#include <iostream>
#include <map>
#include <memory>

#include "common/os/daemon.hpp"
#include "common/os/event.hpp"
#include "common/os/race.hpp"
#include "tests/bench/fleet_node.hpp"

namespace pgvigil::bench {

namespace {

namespace json = boost::json;

struct Options {
  std::string monitor;
  int keepers{100};
  int sessions{0};      // 0: one for each keeper, as the daemon
  bool polling{false};  // neither LISTEN nor the session's lock: what is left behind a transaction pooler
  pg::Millis heartbeat{1000};
  int port{7100};   // of every simulated PostgreSQL, each on an address of its own
  int seconds{30};  // of measurement
  int failovers{20};
  std::string statement;  // instead of all reports: what the server itself needs for one, with $1 the node's id
};

// When all come at once: as a keeper that was not answered in time before (keeper/service/monitor_link.cpp).
constexpr pg::Millis longest_wait{16000};

double milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

json::object summary(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  if (values.empty()) return {{"count", 0}};
  const auto at = [&](double share) {
    return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
  };
  return {{"count", values.size()}, {"min", values.front()}, {"p50", at(0.5)},
          {"p95", at(0.95)},        {"p99", at(0.99)},       {"max", values.back()}};
}

// Over one connection to the monitor's database: one keeper's, as the daemon has it, or those of several.
class Session {
 public:
  Session(asio::io_context& context, const Options& options) : options_(options), wake_(context.get_executor()) {}
  void add(Node* node) { nodes_.push_back(node); }
  std::size_t size() const { return nodes_.size(); }

  asio::awaitable<void> run(pg::Millis delay);
  void report_now(Node& node) {
    node.next_report = Clock::time_point{};
    wake_.set();
  }
  std::vector<double> latencies;
  std::vector<double> late;  // behind the node's own time: the queue for a shared session
  int errors{0};

 private:
  asio::awaitable<void> enlist(pg::Connection& monitor);
  asio::awaitable<void> report(pg::Connection& monitor, Node& node);
  asio::awaitable<void> state(pg::Connection& monitor, Node& node);
  asio::awaitable<void> serve(pg::Connection& monitor);
  Node& most_urgent() const;

  const Options& options_;
  os::Event wake_;
  std::vector<Node*> nodes_;
  std::map<const Node*, monitor_api::Attention> attention_;  // empty when polling
  std::map<const Node*, monitor_api::Reporter> reporters_;
};

asio::awaitable<void> Session::enlist(pg::Connection& monitor) {
  attention_.clear();
  reporters_.clear();
  if (options_.polling) co_return;
  for (Node* node : nodes_) {
    co_await attention_.emplace(node, monitor_api::Attention{}).first->second.open(monitor, node->id(), longest_wait);
  }
}

asio::awaitable<void> Session::state(pg::Connection& monitor, Node& node) {
  node.next_report = Clock::now() + options_.heartbeat;
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(node.id().value));
  const auto sent = Clock::now();
  co_await monitor.query_prepared(options_.statement, params, pg::Millis{10000});
  latencies.push_back(milliseconds(Clock::now() - sent));
  node.peers_version = 0;
}

asio::awaitable<void> Session::report(pg::Connection& monitor, Node& node) {
  if (!options_.statement.empty()) {
    co_await state(monitor, node);
    co_return;
  }
  const auto due = node.next_report;
  node.next_report = Clock::now() + options_.heartbeat;  // before any wait: report_now() may bring it forward
  const Report words = node.report();
  const auto sent = Clock::now();
  if (due != Clock::time_point{}) late.push_back(milliseconds(sent - due));
  const monitor_api::Answer answer = co_await reporters_[&node].tell(monitor, words, pg::Millis{10000});
  latencies.push_back(milliseconds(Clock::now() - sent));
  if (answer.kind != monitor_api::Answer::Kind::goal) throw Error("the monitor has lost its memory");
  const Goal& goal = answer.goal;
  if (node.follow(goal)) node.next_report = node.reach_at();
  if (goal.peers_version != node.peers_version) {
    co_await monitor_api::get_peers(monitor, node.id(), goal.peers_version);
    node.peers_version = goal.peers_version;
  }
  const auto listens = attention_.find(&node);
  if (listens != attention_.end() && co_await listens->second.after(monitor, words, goal)) node.next_report = {};
}

Node& Session::most_urgent() const {
  return **std::min_element(nodes_.begin(), nodes_.end(),
                            [](const Node* left, const Node* right) { return left->next_report < right->next_report; });
}

asio::awaitable<void> Session::serve(pg::Connection& monitor) {
  for (;;) {
    Node& node = most_urgent();
    const auto now = Clock::now();
    if (node.next_report <= now) {
      co_await report(monitor, node);
      continue;
    }
    const auto pause = std::chrono::ceil<pg::Millis>(node.next_report - now);
    const auto order = [&]() -> asio::awaitable<void> {
      const auto notification = co_await monitor.wait_notification(pause);
      if (!notification) co_return;
      for (Node* named : nodes_) {
        if (notification->channel == "pgvigil_node_" + std::to_string(named->id().value)) {
          named->next_report = Clock::time_point{};
          reporters_[named].in_full();
        }
      }
    };
    const auto news = [&]() -> asio::awaitable<void> { co_await wake_.wait(pause); };
    co_await os::race(order(), news());
  }
}

asio::awaitable<void> Session::run(pg::Millis delay) {
  co_await os::sleep_for(delay);
  for (;;) {
    std::string failure;
    try {
      pg::Connection monitor = co_await pg::Connection::connect(options_.monitor, pg::Millis{2000}, longest_wait);
      co_await enlist(monitor);
      co_await serve(monitor);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (errors++ < 3) std::cerr << "a keeper's session: " << failure << std::endl;
    co_await os::sleep_about(pg::Millis{200});
  }
}

class Fleet {
 public:
  Fleet(asio::io_context& context, Options options);
  asio::awaitable<void> run();

 private:
  static bool settled(const Group& group);
  asio::awaitable<void> settle();
  asio::awaitable<void> measure();
  asio::awaitable<void> fail_over(Group& group);
  json::object collect();

  asio::io_context& context_;
  Options options_;
  std::deque<Group> groups_;
  std::deque<Node> nodes_;
  std::deque<Session> sessions_;
  std::map<const Node*, Session*> session_of_;
  std::vector<double> order_ms_;
  std::vector<double> promotion_ms_;
};

Fleet::Fleet(asio::io_context& context, Options options) : context_(context), options_(std::move(options)) {
  const int count = options_.sessions > 0 ? std::min(options_.sessions, options_.keepers) : options_.keepers;
  for (int i = 0; i < count; ++i) sessions_.emplace_back(context_, options_);
  for (int i = 0; i < options_.keepers; ++i) {
    if (i % 2 == 0) groups_.emplace_back().number = i / 2;
    Node& node = nodes_.emplace_back(context_, groups_.back(), i, static_cast<std::uint16_t>(options_.port));
    Session& session = sessions_[static_cast<std::size_t>(i % count)];
    session.add(&node);
    session_of_[&node] = &session;
  }
}

bool Fleet::settled(const Group& group) {
  const Node& left = *group.nodes[0];
  const Node& right = *group.nodes[1];
  if (left.peers_version < 0 || right.peers_version < 0) return false;
  return (left.is(NodeState::primary) && right.is(NodeState::secondary)) ||
         (right.is(NodeState::primary) && left.is(NodeState::secondary));
}

asio::awaitable<void> Fleet::settle() {
  while (!std::all_of(groups_.begin(), groups_.end(), settled)) co_await os::sleep_for(pg::Millis{100});
  std::cout << R"({"phase": "connected"})" << std::endl;  // a monitor that was paused until now goes on
  // Whatever they came in, their reports are spread over a heartbeat from here on.
  auto phase = Clock::now();
  for (Node& node : nodes_) {
    node.next_report = phase + options_.heartbeat;
    phase += std::chrono::duration_cast<Clock::duration>(options_.heartbeat) / options_.keepers;
  }
  co_await os::sleep_for(5 * options_.heartbeat);
  while (!std::all_of(groups_.begin(), groups_.end(), settled)) co_await os::sleep_for(pg::Millis{100});
}

json::object Fleet::collect() {
  std::vector<double> latencies;
  std::vector<double> late;
  int errors = 0;
  for (Session& session : sessions_) {
    latencies.insert(latencies.end(), session.latencies.begin(), session.latencies.end());
    late.insert(late.end(), session.late.begin(), session.late.end());
    errors += std::exchange(session.errors, 0);
    session.latencies.clear();
    session.late.clear();
  }
  return {{"report_ms", summary(std::move(latencies))},
          {"late_ms", summary(std::move(late))},
          {"errors", errors},
          {"probes", std::exchange(FakePostgres::queries, 0)},
          {"probe_sessions", std::exchange(FakePostgres::sessions, 0)}};
}

asio::awaitable<void> Fleet::measure() {
  collect();
  std::cout << R"({"phase": "settled"})" << std::endl;
  const auto began = Clock::now();
  co_await os::sleep_for(std::chrono::seconds{options_.seconds});
  json::object line = collect();
  line["phase"] = "measured";
  line["seconds"] = milliseconds(Clock::now() - began) / 1000;
  std::cout << json::serialize(line) << std::endl;
}

// The primary's keeper says that its PostgreSQL has ended, the standby's that its walreceiver has: both see it at once.
// Connections to it are refused from then on.
asio::awaitable<void> Fleet::fail_over(Group& group) {
  Node& primary = *group.nodes[group.nodes[0]->is(NodeState::primary) ? 0 : 1];
  Node& standby = primary.other();
  const auto began = Clock::now();
  primary.postgres_dies();
  session_of_[&primary]->report_now(primary);
  session_of_[&standby]->report_now(standby);
  while (standby.goal().state != NodeState::report_lsn && !takes_writes(standby.goal().state)) {
    if (Clock::now() - began > std::chrono::seconds{10}) throw std::runtime_error("no order to vote in 10 s");
    co_await os::sleep_for(pg::Millis{1});
  }
  order_ms_.push_back(milliseconds(standby.ordered_at() - began));
  while (!takes_writes(standby.goal().state)) {
    if (Clock::now() - began > std::chrono::seconds{10}) throw std::runtime_error("a failover takes longer than 10 s");
    co_await os::sleep_for(pg::Millis{1});
  }
  promotion_ms_.push_back(milliseconds(standby.ordered_at() - began));
  while (!settled(group)) co_await os::sleep_for(pg::Millis{10});
}

asio::awaitable<void> Fleet::run() {
  // One every 15 ms: sessions are processes of the monitor's PostgreSQL, and all at once would only wait for one
  // another.
  pg::Millis delay{0};
  for (Session& session : sessions_) {
    asio::co_spawn(context_, session.run(delay), asio::detached);
    delay += pg::Millis{15};
  }
  co_await settle();
  co_await measure();
  for (int i = 0; i < options_.failovers; ++i) {
    co_await fail_over(groups_[static_cast<std::size_t>(i) % groups_.size()]);
    co_await os::sleep_for(pg::Millis{737});  // no multiple of the monitor's or the heartbeats' period
  }
  json::object line{{"phase", "failovers"}, {"order_ms", summary(order_ms_)}, {"promotion_ms", summary(promotion_ms_)}};
  std::cout << json::serialize(line) << std::endl;
  context_.stop();
}

bool parse(int argc, char** argv, Options& options) {
  namespace po = boost::program_options;
  po::options_description words("pgvigil-fleet: simulated keepers");
  words.add_options()("help", "this text")("monitor", po::value(&options.monitor)->required(), "URI of its database");
  words.add_options()("keepers", po::value(&options.keepers), "an even number: two are a group");
  words.add_options()("sessions", po::value(&options.sessions), "shared by all; 0: one for each keeper");
  words.add_options()("polling", po::bool_switch(&options.polling), "no LISTEN and no session lock");
  int heartbeat = 1000;
  words.add_options()("heartbeat-ms", po::value(&heartbeat), "between two reports of a keeper");
  words.add_options()("port", po::value(&options.port), "of every simulated PostgreSQL");
  words.add_options()("seconds", po::value(&options.seconds), "of measurement");
  words.add_options()("statement", po::value(&options.statement), "that every heartbeat is, instead of a report");
  words.add_options()("failovers", po::value(&options.failovers), "one after the other, after the measurement");
  po::variables_map values;
  po::store(po::parse_command_line(argc, argv, words), values);
  if (values.contains("help")) {
    std::cout << words;
    return false;
  }
  po::notify(values);
  options.heartbeat = pg::Millis{heartbeat};
  if (!options.statement.empty()) options.polling = true;
  if (options.keepers < 2 || options.keepers % 2 != 0) throw std::runtime_error("--keepers: an even number");
  return true;
}

}  // namespace

}  // namespace pgvigil::bench

int main(int argc, char** argv) {
  try {
    pgvigil::bench::Options options;
    if (!pgvigil::bench::parse(argc, argv, options)) return 0;
    pgvigil::os::raise_file_limit();  // a session, a listening socket and a probe for each node
    boost::asio::io_context context(1);
    pgvigil::bench::Fleet fleet(context, options);
    boost::asio::co_spawn(context, fleet.run(), [](std::exception_ptr failure) {
      if (failure) std::rethrow_exception(failure);
    });
    context.run();
  } catch (const std::exception& error) {
    std::cerr << "pgvigil-fleet: " << error.what() << std::endl;
    return 1;
  }
  return 0;
}
