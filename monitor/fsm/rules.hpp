// The sections of the table. decide() walks them in this order; within a section the order of the rules counts too.
#pragma once
#include <optional>
#include <span>

#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/predicates.hpp"

namespace pgvigil::fsm {

struct Rule {
  RuleInfo info;
  // The change, without rule number and name; nullopt when the condition does not hold.
  std::optional<Decision> (*apply)(const GroupSnapshot& group);
};

std::span<const Rule> request_rules();   // 101-199: operators' commands
std::span<const Rule> failover_rules();  // 301-309: loss of the primary, hand-over
std::span<const Rule> election_rules();  // 311-399: who takes over
std::span<const Rule> standby_rules();   // 401-499: nodes that come, go and return
std::span<const Rule> names_rules();     // 501-599: synchronous_standby_names
std::span<const Rule> learning_rules();  // 601-699: a monitor without memory; then these alone

// Small builders that keep the rules to what they say.
Decision change(std::string description);
Decision& to(Decision& decision, const NodeView& node, NodeState goal);
Decision refuse(std::string message);
Decision& accept(Decision& decision);  // the request, with the decision's description as the answer
// The candidate takes over: its names are stored, its timeline is promised, the survivors follow it at once.
Decision promote(const GroupSnapshot& group, const NodeView& candidate, const Nodes& survivors, std::string why);
// Everyone who can vote does, whoever had the role before is stopped.
Decision start_election(const GroupSnapshot& group, const NodeView& former, std::string why);
Term next(Term term);

}  // namespace pgvigil::fsm
