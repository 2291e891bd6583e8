// The monitor process: wakes on reports and timers, asks the state machine, applies what it decides. All truth is in
// the database: it can be killed and started again at any moment. Ages are measured by its own monotonic clock and
// start again with it.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "common/pg/connection.hpp"
#include "monitor/probe/probe.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

class Monitor {
 public:
  // `conninfo`: of the monitor's database, as the owner of the schema. `before_connect` is run before each attempt
  // (starts the embedded PostgreSQL).
  Monitor(asio::io_context& context, std::string conninfo);

  // Serves until stop(). Throws only what makes going on senseless (a schema that is newer than this program).
  asio::awaitable<void> run();
  void stop() { stopping_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Seen {
    GroupKey group;
    std::int64_t report_count{-1};
    Clock::time_point reported_at;
    bool ever_reported{false};
    bool session_open{false};
    Clock::time_point session_since;
    Clock::time_point streaming_at;
    std::int64_t goal_seq{-1};
    Clock::time_point goal_at;
  };

  asio::awaitable<void> session();
  asio::awaitable<void> refresh_liveness(pg::Connection& database);
  asio::awaitable<void> refresh_probe_targets(pg::Connection& database);
  asio::awaitable<void> evaluate(pg::Connection& database, GroupKey key);
  void fill_in(GroupSnapshot& group);
  static std::optional<GroupKey> parse_payload(const std::string& payload);

  asio::io_context& context_;
  std::string conninfo_;
  Probes probes_;
  std::map<NodeId, Seen> seen_;
  std::set<GroupKey> due_;
  bool stopping_{false};
};

}  // namespace pgvigil::monitor
