// Rules 401-499: nodes that join, fall behind, return, and leave.
#include <algorithm>

#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

constexpr std::uint64_t close_enough = 16u << 20;  // bytes of WAL behind the primary for catchingup -> secondary

bool steady(const NodeView& primary) {
  return writing(primary) && primary.converged();
}

// Runs `rule` for each node that is not the primary, while there is a steady primary.
template <class Body>
std::optional<Decision> for_each_standby(const GroupSnapshot& group, Body rule) {
  const NodeView* primary = writer(group);
  if (primary == nullptr || !steady(*primary)) return std::nullopt;
  for (const NodeView& node : group.nodes) {
    if (&node == primary) continue;
    if (std::optional<Decision> decision = rule(*primary, node)) return decision;
  }
  return std::nullopt;
}

bool owns_names(const GroupSnapshot& group, const NodeView& node) {
  return std::any_of(group.names.begin(), group.names.end(),
                     [&](const NamesInForce& entry) { return entry.by == node.id; });
}

// Its successor's list will be confirmed, and it is asked for no more: that list can do without the one who leaves.
bool can_confirm_without(const GroupSnapshot& group, const NodeView& leaving) {
  const NamesInForce& last = group.names.back();
  const auto others = std::count_if(last.names.members.begin(), last.names.members.end(),
                                    [&](NodeId id) { return id != leaving.id && group.find(id) != nullptr; });
  return last.by == leaving.id || others >= last.names.required;
}

std::optional<Decision> remove_dropped(const GroupSnapshot& group) {
  for (const NodeView& node : group.nodes) {
    if (!node.converged(NodeState::dropped)) continue;
    // While an election may still ask where its WAL ended, a former primary stays on record.
    if (owns_names(group, node) && group.nodes.size() > 1 && can_confirm_without(group, node)) continue;
    Decision decision = change(node.name + " has stopped and leaves the formation");
    decision.remove.push_back(node.id);
    return decision;
  }
  return std::nullopt;
}

std::optional<Decision> last_node(const GroupSnapshot& group) {
  if (group.nodes.size() != 1) return std::nullopt;
  const NodeView& node = group.nodes.front();
  if (!steady(node) || node.goal == NodeState::single) return std::nullopt;
  Decision decision = change(node.name + " is the only node left");
  decision.names_goal = NamesInForce{SyncNames{}, node.id};
  return to(decision, node, NodeState::single);
}

std::optional<Decision> not_single_any_more(const GroupSnapshot& group) {
  const NodeView* primary = writer(group);
  if (primary == nullptr || !primary->converged(NodeState::single)) return std::nullopt;
  for (const NodeView& node : group.nodes) {
    if (&node == primary || node.goal == NodeState::dropped) continue;
    Decision decision = change(primary->name + " prepares for " + node.name + " to join");
    decision.names_goal = NamesInForce{SyncNames{}, primary->id};
    return to(decision, *primary, NodeState::wait_primary);
  }
  return std::nullopt;
}

std::optional<Decision> join(const GroupSnapshot& group) {
  return for_each_standby(group, [](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    // It may have gone on since it told a monitor without memory of itself (rule 603): there is no way back.
    const bool further = node.goal == NodeState::wait_standby &&
                         (node.reported == NodeState::catchingup || node.reported == NodeState::secondary);
    if (!node.converged(NodeState::wait_standby) && !further) return std::nullopt;
    if (primary.goal == NodeState::single) return std::nullopt;
    Decision decision = change(node.name + " may copy " + primary.name);
    return to(decision, node, NodeState::catchingup);
  });
}

std::optional<Decision> former_primary_stops(const GroupSnapshot& group) {
  return for_each_standby(group, [](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    const bool stopped = node.converged(NodeState::demote_timeout) || node.converged(NodeState::draining);
    const bool to_maintenance = node.converged(NodeState::prepare_maintenance);
    if (!stopped && !to_maintenance) return std::nullopt;
    Decision decision = change(node.name + " has stopped; " + primary.name + " is the primary");
    return to(decision, node, to_maintenance ? NodeState::maintenance : NodeState::demoted);
  });
}

std::optional<Decision> rejoin(const GroupSnapshot& group) {
  return for_each_standby(group, [](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    const bool waiting = node.converged(NodeState::demoted) || node.converged(NodeState::report_lsn) ||
                         node.converged(NodeState::stop_replication) || node.converged(NodeState::prepare_promotion) ||
                         node.converged(NodeState::fast_forward);
    if (!waiting || primary.goal == NodeState::single) return std::nullopt;
    Decision decision = change(node.name + " follows " + primary.name);
    return to(decision, node, NodeState::catchingup);
  });
}

// Orders of an election that is over, given to nodes that have not carried them out.
std::optional<Decision> election_is_over(const GroupSnapshot& group) {
  return for_each_standby(group, [](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    const bool ordered = node.goal == NodeState::report_lsn || node.goal == NodeState::stop_replication ||
                         node.goal == NodeState::prepare_promotion || node.goal == NodeState::fast_forward;
    const bool able = runs_as_standby(node.reported) || being_demoted(node.reported) ||
                      node.reported == NodeState::maintenance || node.reported == NodeState::dropped;
    if (!ordered || node.converged() || !able) return std::nullopt;
    Decision decision = change("the election is over: " + node.name + " follows " + primary.name);
    return to(decision, node, NodeState::catchingup);
  });
}

std::optional<Decision> caught_up(const GroupSnapshot& group) {
  return for_each_standby(group, [&](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    const bool close = node.lsn.value + close_enough >= primary.lsn.value && node.timeline == primary.timeline;
    const bool following = node.converged(NodeState::catchingup) || node.converged(NodeState::join_secondary);
    if (!following || !healthy(group, node) || !healthy(group, primary)) return std::nullopt;
    if (!node.streaming || !close) return std::nullopt;
    Decision decision = change(node.name + " streams from " + primary.name + " and has caught up");
    return to(decision, node, NodeState::secondary);
  });
}

std::optional<Decision> lost(const GroupSnapshot& group) {
  return for_each_standby(group, [&](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    const bool counted = node.goal == NodeState::secondary || node.goal == NodeState::join_secondary;
    if (!counted || !healthy(group, primary) || !heard_since(group, primary, node)) return std::nullopt;
    const auto why = standby_lost(group, node);
    if (!why) return std::nullopt;
    Decision decision = change(node.name + " is lost: " + *why);
    return to(decision, node, NodeState::catchingup);
  });
}

// The operator's node has left the names (or the names cannot do without it): it is his now.
std::optional<Decision> maintenance(const GroupSnapshot& group) {
  return for_each_standby(group, [&](const NodeView& primary, const NodeView& node) -> std::optional<Decision> {
    if (!node.converged(NodeState::wait_maintenance)) return std::nullopt;
    const bool kept = in_any_list(group, node.id);
    if (kept && desired_names(group, primary)) return std::nullopt;
    Decision decision =
        change(kept ? node.name + " is in maintenance, and " + primary.name + " waits for it: too few others are left"
                    : node.name + " is in maintenance");
    return to(decision, node, NodeState::maintenance);
  });
}

constexpr Rule table[] = {
    {{401, "remove_dropped", "converged dropped, and no election needs to know where its WAL ended",
      "the node is removed"},
     remove_dropped},
    {{403, "last_node", "the only node left takes writes", "single"}, last_node},
    {{405, "not_single_any_more", "the primary is single and another node has been registered", "wait_primary"},
     not_single_any_more},
    {{411, "join", "a new node waits for permission to copy", "catchingup"}, join},
    {{413, "former_primary_stops", "a former primary has stopped and another node is the primary", "demoted"},
     former_primary_stops},
    {{415, "rejoin", "a demoted node, or one that has voted, and another node is the primary", "catchingup"}, rejoin},
    {{417, "election_is_over", "a node has not carried out an election's order, and there is a primary", "catchingup"},
     election_is_over},
    {{421, "caught_up", "catchingup or join_secondary, streaming, on the primary's timeline, less than 16 MiB behind",
      "secondary"},
     caught_up},
    {{423, "standby_lost",
      "a secondary or join_secondary is dead, does not report, or does not stream, for longer than standby_lost_after; "
      "the primary was heard since",
      "catchingup"},
     lost},
    {{431, "maintenance", "wait_maintenance, and no list of names that may be in force holds the node", "maintenance"},
     maintenance},
};

}  // namespace

std::span<const Rule> standby_rules() {
  return table;
}

}  // namespace pgvigil::fsm
