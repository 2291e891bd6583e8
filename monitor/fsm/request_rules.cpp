// Rules 101-199: what operators ask for. A request is accepted, refused with a reason, or stays pending while it is
// being prepared.
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

const Request* asked(const GroupSnapshot& group, RequestKind kind) {
  return group.request && group.request->kind == kind ? &*group.request : nullptr;
}

// An operator who asks for it may want just that; it is said all the same.
std::string commits_will_wait(const GroupSnapshot& group) {
  return "; number_sync_standbys is " + std::to_string(group.number_sync_standbys) +
         " and too few others are left: commits wait";
}

enum class Former { stays, rests, leaves };

Decision hand_over(const GroupSnapshot& group, const NodeView& primary, const NodeView& candidate,
                   Former former = Former::stays) {
  const auto left = std::count_if(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
    const bool there = node.id == primary.id ? former == Former::stays : node.converged(NodeState::secondary);
    return node.id != candidate.id && node.replication_quorum && there && healthy(group, node);
  });
  std::string words = primary.name + " hands over to " + candidate.name + ", as asked";
  if (left < group.number_sync_standbys) words += commits_will_wait(group);
  Decision decision = change(words);
  to(decision, primary, former == Former::rests ? NodeState::prepare_maintenance : NodeState::draining);
  to(decision, candidate, NodeState::prepare_promotion);
  return accept(decision);
}

// Why a planned hand-over cannot start; empty when it can.
std::string no_handover(const GroupSnapshot& group, const NodeView* primary) {
  if (primary == nullptr) return "a failover is under way already";
  if (!healthy(group, *primary)) {
    return primary->name +
           ", the primary, is not healthy, but it is not surely lost either, or no failover without loss is possible "
           "yet; "
           "`pgvigil show why` tells which";
  }
  return {};
}

// The primary is changing from one writing state to another: a command waits for that.
bool in_transit(const NodeView& primary) {
  return !primary.converged() || !writing(primary);
}

std::optional<Decision> failover(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::failover);
  if (request == nullptr) return std::nullopt;
  const NodeView* primary = writer(group);
  // Asked by a primary that is to be stopped: its successor, if there is one already, has nothing to do with it.
  if (request->node && (primary == nullptr || primary->id != *request->node))
    return refuse("the node that asked is not the primary any more");
  const bool lost = primary == nullptr || dead(group, *primary) || never_came(group, *primary);
  if (request->allow_data_loss && lost) {
    const bool anybody = std::any_of(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
      return &node != primary && node.candidate_priority > 0 &&
             (can_vote(group, node) || has_voted(group, node) || node.goal == NodeState::report_lsn ||
              can_vote_later(group, node) ||
              // it is about to stop, and may vote then
              (being_demoted(node.goal) && !node.converged() && node.goal_age < group.timing.lease));
    });
    if (!anybody) return refuse("there is no healthy node that could take over");
    return std::nullopt;  // the failover rules carry it out; the request stays until the choice is made
  }
  if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
  if (in_transit(*primary)) return std::nullopt;
  const NodeView* candidate = switchover_candidate(group, *primary);
  if (candidate == nullptr) {
    return refuse("no node is ready to take over from " + primary->name +
                  ": it takes a healthy secondary that streams, with a candidate priority above 0");
  }
  return hand_over(group, *primary, *candidate);
}

// With the nodes that are heard now.
bool may_come_to_an_end(const GroupSnapshot& group) {
  Nodes heard = able_voters(group);
  for (const NodeView& node : group.nodes) {
    if (has_voted(group, node) || (surely_stopped(node) && fresh(group, node))) heard.push_back(&node);
  }
  return all_fences_hold(group, heard);
}

std::optional<Decision> promotion(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::promotion);
  if (request == nullptr) return std::nullopt;
  const NodeView* target = request->node ? group.find(*request->node) : nullptr;
  if (target == nullptr) return refuse("the node is not in this group any more");
  const NodeView* primary = writer(group);
  if (target == primary) {
    Decision decision = change(target->name + " is the primary already");
    return accept(decision);
  }
  const bool voting = target->goal == NodeState::report_lsn || target->goal == NodeState::fast_forward;
  if (primary == nullptr && leaving_primary(group) == nullptr && voting) {
    if (may_come_to_an_end(group)) return std::nullopt;  // the election chooses it
    return refuse("the election waits for a node that may hold what nobody else does; `pgvigil show why` names it");
  }
  if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
  if (in_transit(*primary)) return std::nullopt;
  // The candidate search over this one node: the same conditions, but for a priority of 0, which the operator overrules
  // by naming it.
  GroupSnapshot only = group;
  std::erase_if(only.nodes, [&](const NodeView& node) { return node.id != target->id && node.id != primary->id; });
  for (NodeView& node : only.nodes) node.candidate_priority = std::max(1, node.candidate_priority);
  if (switchover_candidate(only, *primary) == nullptr) {
    return refuse(target->name + " is not a healthy secondary that streams");
  }
  return hand_over(group, *primary, *target);
}

int quorum_standbys_without(const GroupSnapshot& group, const NodeView& leaving, const NodeView* primary) {
  return static_cast<int>(std::count_if(group.nodes.begin(), group.nodes.end(), [&](const NodeView& node) {
    return &node != &leaving && &node != primary && node.replication_quorum && node.goal != NodeState::dropped;
  }));
}

// A standby leaves: out of the names first, so that no commit waits for it.
std::optional<Decision> drop_standby(const GroupSnapshot& group, const NodeView& primary, const NodeView& target) {
  const bool others = group.nodes.size() > 2;
  if (others && quorum_standbys_without(group, target, &primary) < group.number_sync_standbys) {
    return refuse("number_sync_standbys is " + std::to_string(group.number_sync_standbys) + ", and without " +
                  target.name + " too few standbys with replication quorum would be left; lower it first");
  }
  const bool counted = in_any_list(group, target.id);
  // A failover may need it, if that is what comes.
  if (counted && !healthy(group, primary)) return std::nullopt;
  if (counted && target.goal == NodeState::secondary) {
    Decision decision = change(target.name + " is to be dropped, and leaves the names first");
    return to(decision, target, NodeState::wait_maintenance);
  }
  if (counted && target.goal == NodeState::wait_maintenance && desired_names(group, primary)) return std::nullopt;
  Decision decision = change("asked to drop " + target.name);
  return accept(to(decision, target, NodeState::dropped));
}

std::optional<Decision> drop_node(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::drop_node);
  if (request == nullptr) return std::nullopt;
  const NodeView* target = request->node ? group.find(*request->node) : nullptr;
  if (target == nullptr) return refuse("the node is not in this group any more");
  const NodeView* primary = writer(group);
  if (group.nodes.size() == 1 || target->goal == NodeState::dropped) {
    Decision decision = change("asked to drop " + target->name);
    return accept(to(decision, *target, NodeState::dropped));
  }
  if (target != primary) {
    // Also the second half of dropping a primary: the hand-over has to end first. The request waits.
    const bool settled = primary != nullptr && writing(*primary) && primary->converged();
    return settled ? drop_standby(group, *primary, *target) : std::nullopt;
  }
  // The primary leaves: somebody has to take over first. The request stays until it is no longer the primary.
  if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
  if (in_transit(*primary)) return std::nullopt;
  const NodeView* candidate = switchover_candidate(group, *primary);
  if (candidate == nullptr)
    return refuse(target->name + " is the primary and no node is ready to take over; --force removes it all the same");
  Decision decision = hand_over(group, *primary, *candidate, Former::leaves);
  decision.request = RequestOutcome::pending;
  return decision;
}

bool in_maintenance(const NodeView& node) {
  return node.goal == NodeState::prepare_maintenance || node.goal == NodeState::wait_maintenance ||
         node.goal == NodeState::maintenance;
}

std::optional<Decision> start_maintenance(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::start_maintenance);
  if (request == nullptr) return std::nullopt;
  const NodeView* target = request->node ? group.find(*request->node) : nullptr;
  if (target == nullptr) return refuse("the node is not in this group any more");
  if (in_maintenance(*target)) {
    Decision decision = change(target->name + " is in maintenance, or on its way there, already");
    return accept(decision);
  }
  const NodeView* primary = writer(group);
  if (target == primary) {
    if (!request->allow_failover)
      return refuse(target->name + " is the primary: --allow-failover hands over to another node first");
    if (auto reason = no_handover(group, primary); !reason.empty()) return refuse(reason);
    if (in_transit(*primary)) return std::nullopt;
    const NodeView* candidate = switchover_candidate(group, *primary);
    if (candidate == nullptr) return refuse("no node is ready to take over from " + primary->name);
    return hand_over(group, *primary, *candidate, Former::rests);
  }
  if (primary == nullptr) return refuse("a failover is under way; try again when there is a primary");
  const bool standby = target->goal == NodeState::secondary || target->goal == NodeState::catchingup ||
                       target->goal == NodeState::join_secondary;
  if (!standby || !runs_as_standby(target->reported)) {
    return refuse(target->name + " is " + std::string(to_string(target->reported)) + " on its way to " +
                  std::string(to_string(target->goal)) + ": only a standby that holds a copy goes into maintenance");
  }
  GroupSnapshot without = group;
  for (NodeView& node : without.nodes) {
    if (node.id == target->id) node.goal = NodeState::wait_maintenance;
  }
  std::string words = target->name + " goes into maintenance, as asked";
  if (in_any_list(group, target->id) && !desired_names(without, *without.find(primary->id))) {
    words += commits_will_wait(group) + " while " + target->name + " is away";
  }
  Decision decision = change(words);
  return accept(to(decision, *target, NodeState::wait_maintenance));
}

std::optional<Decision> stop_maintenance(const GroupSnapshot& group) {
  const Request* request = asked(group, RequestKind::stop_maintenance);
  if (request == nullptr) return std::nullopt;
  const NodeView* target = request->node ? group.find(*request->node) : nullptr;
  if (target == nullptr) return refuse("the node is not in this group any more");
  if (target->goal == NodeState::prepare_maintenance)
    return refuse(target->name + " is handing over before its maintenance; try again when that is done");
  if (!in_maintenance(*target)) return refuse(target->name + " is not in maintenance");
  const NodeView* primary = writer(group);
  Decision decision = change(target->name + " leaves maintenance, as asked");
  return accept(to(decision, *target, primary != nullptr ? NodeState::catchingup : NodeState::report_lsn));
}

// A command that could not be carried out in time ends: it must not stand in the way of the next one.
std::optional<Decision> expired(const GroupSnapshot& group) {
  if (!group.request || group.request->age < group.timing.drain_timeout) return std::nullopt;
  Decision decision = refuse("it could not be carried out in time; `pgvigil show why` tells what the group waits for");
  const NodeView* target = group.request->node ? group.find(*group.request->node) : nullptr;
  const bool undo =
      group.request->kind == RequestKind::drop_node && target != nullptr && target->goal == NodeState::wait_maintenance;
  if (undo) to(decision, *target, NodeState::catchingup);
  return decision;
}

constexpr Rule table[] = {
    {{101, "failover", "asked for a failover",
      "primary: draining, best secondary: prepare_promotion; or refused, with the reason"},
     failover},
    {{103, "promotion", "asked for the promotion of a named node",
      "primary: draining, that node: prepare_promotion; or refused"},
     promotion},
    {{105, "drop_node", "asked to drop a node",
      "dropped; a primary hands over first, a node in the names leaves them first (wait_maintenance); or refused"},
     drop_node},
    {{107, "start_maintenance", "asked for the maintenance of a node",
      "wait_maintenance; primary, with --allow-failover: prepare_maintenance and best secondary: prepare_promotion; or "
      "refused"},
     start_maintenance},
    {{109, "stop_maintenance", "asked to end a maintenance", "catchingup; without a primary: report_lsn; or refused"},
     stop_maintenance},
    {{199, "expired", "a command has been pending for longer than the drain timeout", "refused"}, expired},
};

}  // namespace

std::span<const Rule> request_rules() {
  return table;
}

}  // namespace pgvigil::fsm
