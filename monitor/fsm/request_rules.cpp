// Rules 101-199: what operators ask for. A request is accepted, refused with a reason, or stays pending while it is
// being prepared.
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

const Request* asked(const GroupSnapshot& group, RequestKind kind) {
  return group.request && group.request->kind == kind ? &*group.request : nullptr;
}

Decision hand_over(const NodeView& primary, const NodeView& candidate) {
  Decision decision = change("asked to hand over from " + primary.name + " to " + candidate.name);
  to(decision, primary, NodeState::draining);
  to(decision, candidate, NodeState::prepare_promotion);
  decision.request = RequestOutcome::accepted;
  decision.request_message = primary.name + " hands over to " + candidate.name;
  return decision;
}

// Why a planned hand-over cannot start; empty when it can.
std::string no_handover(const GroupSnapshot& group, const NodeView* primary) {
  if (primary == nullptr) return "a failover is under way already";
  if (!primary->converged() || !writing(*primary))
    return primary->name + ", the primary, is still on its way to " + std::string(to_string(primary->goal));
  if (!healthy(group, *primary)) {
    return primary->name +
           ", the primary, is not healthy, and no failover without loss is possible yet; "
           "`perform failover --allow-data-loss` chooses the best node that is left";
  }
  return {};
}

std::optional<Decision> failover(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::failover);
  if (request == nullptr) return std::nullopt;
  const NodeView* primary = writer(group);
  const bool lost = primary == nullptr || dead(group, *primary).has_value();
  if (request->allow_data_loss && lost) {
    const bool anybody = std::any_of(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
      return &node != primary && node.candidate_priority > 0 &&
             (can_vote(group, node) || has_voted(group, node) || node.goal == NodeState::report_lsn ||
              (surely_stopped(node) && fresh(group, node)));
    });
    if (!anybody) return refuse("there is no healthy node that could take over");
    return std::nullopt;  // the failover rules carry it out; the request stays until the choice is made
  }
  if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
  const NodeView* candidate = switchover_candidate(group, *primary);
  if (candidate == nullptr) {
    return refuse("no node is ready to take over from " + primary->name +
                  ": it takes a healthy secondary with a candidate priority above 0 that is in the synchronous names");
  }
  return hand_over(*primary, *candidate);
}

std::optional<Decision> promotion(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::promotion);
  if (request == nullptr) return std::nullopt;
  const NodeView* target = request->node ? group.find(*request->node) : nullptr;
  if (target == nullptr) return refuse("the node is not in this group any more");
  const NodeView* primary = writer(group);
  if (target == primary) {
    Decision decision = change(target->name + " is the primary already");
    decision.request = RequestOutcome::accepted;
    decision.request_message = decision.description;
    return decision;
  }
  if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
  // The candidate search over this one node: the same conditions, but for a priority of 0, which the operator overrules
  // by naming it.
  GroupSnapshot only = group;
  std::erase_if(only.nodes, [&](const NodeView& node) { return node.id != target->id && node.id != primary->id; });
  for (NodeView& node : only.nodes) node.candidate_priority = std::max(1, node.candidate_priority);
  if (switchover_candidate(only, *primary) == nullptr) {
    return refuse(target->name + " is not a healthy secondary in the synchronous names");
  }
  return hand_over(*primary, *target);
}

std::optional<Decision> drop_node(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::drop_node);
  if (request == nullptr) return std::nullopt;
  const NodeView* target = request->node ? group.find(*request->node) : nullptr;
  if (target == nullptr) return refuse("the node is not in this group any more");
  const auto drop = [&](const NodeView& node) {
    Decision decision = change("asked to drop " + node.name);
    to(decision, node, NodeState::dropped);
    decision.request = RequestOutcome::accepted;
    decision.request_message = decision.description;
    return decision;
  };
  const NodeView* primary = writer(group);
  if (target != primary || group.nodes.size() == 1) {
    // Also the second half of dropping a primary: the hand-over has to end first. The request waits.
    const bool settled = group.nodes.size() == 1 || (primary != nullptr && writing(*primary) && primary->converged());
    return settled ? std::optional(drop(*target)) : std::nullopt;
  }
  // The primary leaves: somebody has to take over first. The request stays until it is no longer the primary.
  if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
  const NodeView* candidate = switchover_candidate(group, *primary);
  if (candidate == nullptr)
    return refuse(target->name + " is the primary and no node is ready to take over; --force removes it all the same");
  Decision decision = hand_over(*primary, *candidate);
  decision.request = RequestOutcome::pending;
  return decision;
}

constexpr Rule table[] = {
    {{101, "failover", "asked for a failover",
      "primary: draining, best secondary: prepare_promotion; or refused, with the reason"},
     failover},
    {{103, "promotion", "asked for the promotion of a named node",
      "primary: draining, that node: prepare_promotion; or refused"},
     promotion},
    {{105, "drop_node", "asked to drop a node", "dropped; a primary hands over first; or refused"}, drop_node},
};

}  // namespace

std::span<const Rule> request_rules() {
  return table;
}

}  // namespace pgvigil::fsm
