// A simulated node: reaches every goal at once (but a start takes a moment), without a PostgreSQL. Two of them are a
// group and share its history.
#pragma once
#include <array>
#include <chrono>
#include <optional>
#include <string>

#include "common/model/goal.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "tests/bench/fake_postgres.hpp"

namespace pgvigil::bench {

using Clock = std::chrono::steady_clock;

class Node;

struct Group {
  int number{0};
  Timeline timeline{1};
  Lsn lsn{0x3000000};
  History history;
  std::array<Node*, 2> nodes{};
};

class Node {
 public:
  // The index-th of a fleet whose formation stands (FORMED in tests/bench/fleet): as the monitor's tables say it is.
  Node(asio::io_context& context, Group& group, int index, std::uint16_t port);

  Report report();
  // True when something was reached that the monitor has to hear at once.
  bool follow(const Goal& goal);
  void postgres_dies();

  Group& group() const { return group_; }
  Node& other() const { return *group_.nodes[group_.nodes[0] == this ? 1 : 0]; }
  NodeId id() const { return id_; }
  const Goal& goal() const { return goal_; }
  bool is(NodeState state) const { return goal_.state == state && state_ == state; }
  Clock::time_point reach_at() const { return reach_at_; }
  // The goal's first sight, and of which state.
  Clock::time_point ordered_at() const { return ordered_at_; }

  Clock::time_point next_report{};
  std::int64_t peers_version{-1};  // -1: no answer yet

 private:
  bool streams() const;
  void reach();

  Group& group_;
  std::string address_;
  FakePostgres postgres_;
  NodeId id_;
  Goal goal_;
  NodeState state_{NodeState::init};
  bool running_{false};
  Timeline timeline_{0};
  Lsn lsn_;
  History history_;
  Clock::time_point ordered_at_{};
  Clock::time_point reach_at_{};  // of the goal
  std::int64_t reached_seq_{0};
};

}  // namespace pgvigil::bench
