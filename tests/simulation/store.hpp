// The monitor's database, as sql/ has it, in memory: what a report stores, what a goal holds, what a decision changes.
// The rules of 100_keeper_api.sql, 110_client_api.sql and 110_learning.sql in C++; against_sql.cpp compares the two.
#pragma once
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/model/group.hpp"
#include "monitor/fsm/decide.hpp"

namespace pgvigil::simulation {

class Store {
 public:
  Store() = default;
  Store(const Store&) = default;
  Store& operator=(const Store&) = default;
  virtual ~Store() = default;

  // The nodes stand in the order of their registration (real ids grow with it), once it has learned, by id.
  GroupSnapshot group;  // durable, but for the part of each node that a report tells every time
  std::int64_t peers_version{0};
  std::set<std::int64_t> removed;
  std::int64_t requests{0};
  std::string system;                  // of its PGDATA; empty: not known yet
  std::optional<std::string> refusal;  // of the last request

  // tell: it has lost its memory, and asks what the node knows. wait: it was told, and does not know enough yet.
  enum class Answer { goal, refused, tell, wait };
  struct Reported {
    Answer answer{Answer::refused};
    Goal goal;
    bool news{false};  // the monitor process is woken
  };
  virtual Reported report(const Report& report);
  // What sql/ does with a keeper's account.
  virtual Reported tell(NodeId id, int priority, bool quorum, const std::string& its_system, const Account& account);
  // It is to be what it was then. From a backup, or (an empty one) of a new monitor.
  virtual void restore(const Store& then);
  Goal goal_of(const NodeView& node) const;
  std::vector<Peer> peers_of(NodeId self) const;
  // The row is there afterwards, or the registration is refused for now.
  virtual bool add_node(NodeId id, int priority, bool quorum);
  // False: another request is pending.
  virtual bool ask(RequestKind kind, std::optional<NodeId> node, bool allow);
  virtual void remove_by_force(NodeId id);
  virtual void apply(const fsm::Decision& decision);
  // Its PostgreSQL has crashed: the unlogged table is empty.
  virtual void forget_reports();
  std::int64_t reports_of(NodeId id) const;

 private:
  NodeView* find(NodeId id);
  bool foreign(const std::string& its_system) const;
  void count_report(NodeId id);
  bool brings_nothing(const Account& account) const;
  void enroll(NodeId id, int priority, bool quorum, const Account& account);
  void remove(NodeId id);
  void sort_nodes();
  void lose_memory();
  void store_facts(NodeView& node, const Report& report);
  std::vector<std::pair<NodeId, std::int64_t>> report_counts_;
};

}  // namespace pgvigil::simulation
