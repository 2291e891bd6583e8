// Groups to decide about, as the unit tests of the rules need them.
#pragma once
#include "monitor/fsm/decide.hpp"

namespace pgvigil::testing {

inline NodeView node(std::int64_t id, NodeState state) {
  NodeView view;
  view.id = NodeId{id};
  view.name = "n" + std::to_string(id);
  view.goal = view.reported = state;
  view.goal_seq = view.reported_seq = 1;
  view.reported_term = Term{1};
  view.pg_running = view.pg_responding = true;
  view.streaming = true;
  view.timeline = Timeline{1};
  view.lsn = Lsn{1000};
  view.ever_reported = true;
  view.heard_for = Millis{3600000};
  view.session_open = true;
  view.probe = ProbeResult::good;
  return view;
}

inline void crash(NodeView& view) {
  view.session_open = false;
  view.session_closed_for = Millis{50};
  view.probe = ProbeResult::refused;
  view.probe_age = Millis{10};
}

inline void vanish(NodeView& view) {
  view.session_open = false;
  view.report_age = view.session_closed_for = view.not_streaming_for = Millis{5000};
  view.probe = ProbeResult::silent;
  view.probe_not_good_for = Millis{5000};
}

inline GroupSnapshot pair_of(int required = 1) {
  GroupSnapshot group;
  group.formation = "default";
  group.term = Term{1};
  group.promised_timeline = Timeline{1};
  group.nodes = {node(1, NodeState::primary), node(2, NodeState::secondary)};
  SyncNames names{required, {}};
  if (required > 0) names.members = {NodeId{2}};
  group.names = {NamesInForce{names, NodeId{1}}};
  group.names_version = 1;
  for (NodeView& view : group.nodes) view.names_version = 1;
  return group;
}

inline GroupSnapshot three() {
  GroupSnapshot group = pair_of();
  group.nodes.push_back(node(3, NodeState::secondary));
  group.names.back().names.members = {NodeId{2}, NodeId{3}};
  return group;
}

inline NodeState goal_in(const fsm::Decision& decision, std::int64_t id) {
  for (const auto& change : decision.goals) {
    if (change.node.value == id) return change.goal;
  }
  return NodeState::init;
}

inline void converge(GroupSnapshot& group, std::size_t index) {
  NodeView& view = group.nodes[index];
  view.reported = view.goal;
  view.reported_seq = view.goal_seq;
  view.reported_term = group.term;
}

inline void apply(GroupSnapshot& group, const fsm::Decision& decision) {
  if (decision.term) group.term = *decision.term;
  if (decision.promised_timeline) group.promised_timeline = *decision.promised_timeline;
  if (decision.confirm_names) group.names = {group.names.back()};
  if (decision.names_goal) {
    add_names(group.names, *decision.names_goal);
    ++group.names_version;
  }
  for (const auto& change : decision.goals) {
    for (NodeView& view : group.nodes) {
      if (view.id == change.node) {
        view.goal = change.goal;
        view.source = change.source;
        ++view.goal_seq;
      }
    }
  }
  for (const NodeId id : decision.remove)
    std::erase_if(group.nodes, [&](const NodeView& view) { return view.id == id; });
  if (decision.request != fsm::RequestOutcome::pending) group.request.reset();
}

}  // namespace pgvigil::testing
