// The monitor's state machine: a pure function from a picture of a group to the changes that one rule makes.
// The table is in rules.cpp, numbered and named, first match wins; monitor/fsm/README.md gives the reasons.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/group.hpp"

namespace pgvigil::fsm {

struct GoalChange {
  NodeId node;
  NodeState goal{NodeState::init};
  std::optional<NodeId> source;  // fast_forward: where to get the missing WAL
};

// What a monitor that had lost its memory has learned of a group; it replaces what was on record.
struct Learned {
  std::vector<NamesInForce> names;
  std::int64_t names_version{0};
  std::int64_t seq{0};  // no order had a higher number; those of this decision get the next one
  std::int64_t peers_version{0};
};

// What happens to the operator's request that the snapshot carried.
enum class RequestOutcome { pending, accepted, refused };

struct Decision {
  int rule{0};
  std::string_view rule_name;
  std::string description;                    // one clause for the event: why, with the names of the nodes
  std::vector<GoalChange> goals;              // one event for each of them (or one for the group when there is none)
  std::optional<Term> term;                   // the group's new term
  std::optional<NamesInForce> names_goal;     // appended to the group's list, under a new version
  std::optional<NodeId> heir;                 // is promoted: of every list so far (NamesInForce)
  bool confirm_names{false};                  // the last list is confirmed: the older ones are forgotten
  std::optional<Timeline> promised_timeline;  // see GroupSnapshot
  std::vector<NodeId> remove;                 // rows to delete
  std::optional<Learned> learned;
  RequestOutcome request{RequestOutcome::pending};
  std::string request_message;  // for the operator: what was done, or why it was refused and what to do
};

// nullopt: nothing to do. The caller applies the decision in one transaction and asks again until there is none.
std::optional<Decision> decide(const GroupSnapshot& group);

// While the monitor learns: the node has WAL, or has not said that it has none. When an operator removes it by force, a
// list of it alone, by node 0, joins the group's, so that no election goes on without it unless data loss is allowed.
bool may_hold_commits(const NodeView& node);

struct RuleInfo {
  int number;
  std::string_view name;
  std::string_view condition;  // in words
  std::string_view effect;     // in words
};
const std::vector<RuleInfo>& rules();

}  // namespace pgvigil::fsm
