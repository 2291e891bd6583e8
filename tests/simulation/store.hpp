// The monitor's database, as sql/ has it, in memory: what a report stores, what a goal holds, what a decision changes.
// The rules of 100_keeper_api.sql and 110_client_api.sql in C++; a scenario compares the two.
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
  Reported report(const Report& report);
  // What sql/ does with a keeper's account.
  Reported tell(NodeId id, int priority, bool quorum, const std::string& its_system, const Account& account);
  // It was restored from a backup: this store is what it was then.
  void lose_memory();
  Goal goal_of(const NodeView& node) const;
  std::vector<Peer> peers_of(NodeId self) const;
  // The row is there afterwards, or the registration is refused for now.
  bool add_node(NodeId id, int priority, bool quorum);
  // False: another request is pending.
  bool ask(RequestKind kind, std::optional<NodeId> node, bool allow);
  void remove_by_force(NodeId id);
  void apply(const fsm::Decision& decision);
  // Its PostgreSQL has crashed: the unlogged table is empty.
  void forget_reports();
  std::int64_t reports_of(NodeId id) const;

 private:
  NodeView* find(NodeId id);
  bool foreign(const std::string& its_system) const;
  void count_report(NodeId id);
  bool brings_nothing(const Account& account) const;
  void enroll(NodeId id, int priority, bool quorum, const Account& account);
  void remove(NodeId id);
  void store_facts(NodeView& node, const Report& report);
  std::vector<std::pair<NodeId, std::int64_t>> report_counts_;
};

}  // namespace pgvigil::simulation
