#include "monitor/fsm/liveness.hpp"

#include <algorithm>
#include <utility>

#include "monitor/fsm/predicates.hpp"

namespace pgvigil::fsm {

void Liveness::learn_gap(Seen& node, Millis gap) {
  if (!node.ever_reported) return;
  const Millis passed = std::min(gap, memory);
  node.longest_gap -= node.longest_gap * passed.count() / memory.count();
  node.usual_gap -= node.usual_gap * passed.count() / memory.count();
  if (gap >= node.longest_gap) {
    node.usual_gap = node.longest_gap;
    node.longest_gap = gap;
  } else {
    node.usual_gap = std::max(node.usual_gap, gap);
  }
}

Liveness::News Liveness::look(const std::vector<Heard>& nodes, Millis now) {
  News news;
  ++looks_;
  for (const Heard& node : nodes) {
    const auto [known, is_new] = seen_.try_emplace(node.node);
    Seen& entry = known->second;
    entry.look = looks_;
    if (is_new) {
      entry.report_count = node.report_count;
      entry.reported_at = entry.session_since = entry.streaming_at = entry.goal_at = now;
      entry.session_open = node.session_open;
      news.appeared.push_back(node.node);
    }
    if (node.report_count == 0) {
      // Never, or not since the database lost its unlogged table in a crash: what stands there is not the node's word.
      entry.report_count = 0;
      entry.ever_reported = false;
    } else if (entry.report_count != node.report_count) {
      entry.report_count = node.report_count;
      const Millis gap = now - entry.reported_at;
      learn_gap(entry, gap);
      const Millis silence = std::max(entry.unhealthy_after, entry.patience);
      if (!entry.ever_reported || gap >= silence) entry.heard_since = now;
      if (entry.reports_until_then > 0 && --entry.reports_until_then == 0) entry.former_patience = Millis{0};
      entry.reported_at = now;
      entry.ever_reported = true;
    }
    if (entry.session_open != node.session_open) {
      entry.session_open = node.session_open;
      entry.session_since = now;
      news.session_changed.push_back(node.node);
      if (!node.session_open) news.session_closed.push_back(node.node);
    }
  }
  if (seen_.size() != nodes.size()) {
    std::erase_if(seen_, [this](const auto& entry) { return entry.second.look != looks_; });
  }
  return news;
}

void Liveness::excuse_all(Millis now) {
  for (auto& [node, entry] : seen_) entry.reported_at = entry.streaming_at = entry.heard_since = now;
}

void Liveness::fill_in(GroupSnapshot& group, Millis now, const std::function<ProbeView(NodeId)>& probe) {
  for (NodeView& node : group.nodes) {
    const auto found = seen_.find(node.id);
    if (found == seen_.end()) continue;  // registered since the last look
    Seen& seen = found->second;
    if (seen.goal_seq != node.goal_seq) {
      seen.goal_seq = node.goal_seq;
      seen.goal_at = seen.streaming_at = now;
    }
    // Of one that has not been heard since the database lost its unlogged table nothing is known.
    if (node.streaming || !seen.ever_reported) seen.streaming_at = now;
    // Other timings: the gaps of another heartbeat say nothing.
    const Millis former = std::exchange(seen.unhealthy_after, group.timing.unhealthy_after);
    if (former != group.timing.unhealthy_after) {
      seen.longest_gap = seen.usual_gap = Millis{0};
      seen.former_patience = former > group.timing.unhealthy_after ? former : Millis{0};
      seen.reports_until_then = 2;
    }
    node.ever_reported = seen.ever_reported;
    node.report_age = now - seen.reported_at;
    node.heard_for = seen.ever_reported ? now - seen.heard_since : Millis{0};
    seen.patience = std::max(std::min(seen.usual_gap * 5 / 2, group.timing.unhealthy_after * 3), seen.former_patience);
    node.patience = seen.patience;
    node.session_open = seen.session_open;
    node.session_closed_for = seen.session_open ? Millis{0} : now - seen.session_since;
    node.not_streaming_for = now - seen.streaming_at;
    node.goal_age = now - seen.goal_at;
    const ProbeView view = probe(node.id);
    if (view.result == ProbeResult::good) seen.probed_well = true;
    if (view.result == ProbeResult::unknown) seen.probed_well = false;
    // A port that has never let the monitor in proves nothing by refusing it: a firewall may, or another host.
    const bool stranger = view.result == ProbeResult::refused && !seen.probed_well;
    node.probe = stranger ? ProbeResult::silent : view.result;
    if (view.result != ProbeResult::unknown) {
      node.probe_age = now - view.at;
      if (surely_stopped(node)) seen.stopped_at = now;
      node.probe_not_good_for = now - std::max(view.last_good, seen.stopped_at);
    }
  }
  if (group.request) {
    const auto [first, is_new] = requests_.try_emplace(group.request->id, now);
    group.request->age = now - first->second;
    // One group has one request at a time; the old ones of all groups are forgotten now and then.
    if (is_new && requests_.size() > 1000) requests_.erase(requests_.begin());
  }
}

}  // namespace pgvigil::fsm
