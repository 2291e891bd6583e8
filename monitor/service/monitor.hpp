// The monitor process: wakes on reports and timers, asks the state machine, applies what it decides. All truth is in
// the database: it can be killed and started again at any moment. Ages are measured by its own monotonic clock and
// start again with it.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "common/pg/connection.hpp"
#include "monitor/fsm/explain.hpp"
#include "monitor/fsm/liveness.hpp"
#include "monitor/probe/probe.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

class Monitor {
 public:
  // `conninfo`: of the monitor's database, as the owner of the schema. `witness`: see witness.hpp.
  Monitor(asio::io_context& context, std::string conninfo, std::filesystem::path witness);

  // Serves until stop(). Throws only what makes going on senseless (a schema that is newer than this program).
  asio::awaitable<void> run();
  void stop() { stopping_ = true; }
  // Its database answers, and no other process decides.
  bool deciding() const { return deciding_; }
  std::size_t nodes() const { return groups_.size(); }

 private:
  using Clock = std::chrono::steady_clock;
  asio::awaitable<void> session();
  asio::awaitable<void> check_memory(pg::Connection& database);
  asio::awaitable<void> refresh_liveness(pg::Connection& database);
  asio::awaitable<void> refresh_probe_targets(pg::Connection& database);
  asio::awaitable<void> evaluate(pg::Connection& database, GroupKey key);
  static std::optional<GroupKey> parse_payload(const std::string& payload);

  asio::io_context& context_;
  std::string conninfo_;
  std::filesystem::path witness_;
  std::string system_identifier_;  // of the database
  Probes probes_;
  fsm::Liveness liveness_;
  std::map<NodeId, GroupKey> groups_;
  std::map<GroupKey, std::vector<fsm::Explanation>> told_;  // what stands in the explanation table
  std::set<GroupKey> due_;
  bool stopping_{false};
  bool deciding_{false};
};

}  // namespace pgvigil::monitor
