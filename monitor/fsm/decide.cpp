#include "monitor/fsm/decide.hpp"

#include <array>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

std::array<std::span<const Rule>, 5> sections() {
  return {request_rules(), failover_rules(), election_rules(), standby_rules(), names_rules()};
}

std::optional<Decision> first_match(std::span<const Rule> section, const GroupSnapshot& group) {
  for (const Rule& rule : section) {
    if (auto decision = rule.apply(group)) {
      decision->rule = rule.info.number;
      decision->rule_name = rule.info.name;
      return decision;
    }
  }
  return std::nullopt;
}

}  // namespace

Decision change(std::string description) {
  Decision decision;
  decision.description = std::move(description);
  return decision;
}

Decision& to(Decision& decision, const NodeView& node, NodeState goal) {
  decision.goals.push_back({node.id, goal, std::nullopt});
  return decision;
}

Decision refuse(std::string message) {
  Decision decision;
  decision.description = "refused: " + message;
  decision.request = RequestOutcome::refused;
  decision.request_message = std::move(message);
  return decision;
}

Decision& accept(Decision& decision) {
  decision.request = RequestOutcome::accepted;
  decision.request_message = decision.description;
  return decision;
}

std::optional<Decision> decide(const GroupSnapshot& group) {
  if (group.learning) return first_match(learning_rules(), group);
  for (const auto section : sections()) {
    if (auto decision = first_match(section, group)) return decision;
  }
  return std::nullopt;
}

const std::vector<RuleInfo>& rules() {
  static const std::vector<RuleInfo> all = [] {
    std::vector<RuleInfo> infos;
    for (const auto section : sections()) {
      for (const Rule& rule : section) infos.push_back(rule.info);
    }
    for (const Rule& rule : learning_rules()) infos.push_back(rule.info);
    return infos;
  }();
  return all;
}

}  // namespace pgvigil::fsm
