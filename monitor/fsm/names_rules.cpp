// Rules 501-599: synchronous_standby_names, always persisted here before the primary puts them in force.
#include "monitor/fsm/rules.hpp"

namespace pgvigil::fsm {

namespace {

const NodeView* steady_primary(const GroupSnapshot& group) {
  const NodeView* primary = writer(group);
  if (primary == nullptr || !writing(*primary) || !primary->converged()) return nullptr;
  return primary;
}

bool told(const GroupSnapshot& group, const NodeView& primary) {
  return !group.names.empty() && group.names.back().by == primary.id;
}

std::string in_words(const SyncNames& names) {
  return names.asynchronous() ? "no synchronous standby" : to_guc(names);
}

std::optional<Decision> confirmed(const GroupSnapshot& group) {
  const NodeView* primary = steady_primary(group);
  if (primary == nullptr || !told(group, *primary) || group.names.size() < 2) return std::nullopt;
  if (primary->names_version != group.names_version) return std::nullopt;
  Decision decision = change(primary->name + " has put the names in force: " + in_words(group.names.back().names));
  decision.confirm_names = true;
  return decision;
}

std::optional<Decision> new_names(const GroupSnapshot& group) {
  const NodeView* primary = steady_primary(group);
  if (primary == nullptr || primary->goal == NodeState::single || !healthy(group, *primary)) return std::nullopt;
  const auto names = desired_names(group, *primary);
  if (!names || (told(group, *primary) && group.names.back().names == *names)) return std::nullopt;
  Decision decision =
      change(names->asynchronous() ? "no secondary with replication quorum is left and number_sync_standbys is 0: " +
                                         primary->name + " goes on without a synchronous standby"
                                   : primary->name + " is to wait for " + to_guc(*names));
  decision.names_goal = NamesInForce{*names, primary->id};
  // Told apart for who watches: no synchronous standby, or a change from one list to another.
  const NodeState goal = names->asynchronous() ? NodeState::wait_primary : NodeState::apply_settings;
  const bool moves = primary->goal == NodeState::primary ||
                     (primary->goal == NodeState::apply_settings && goal == NodeState::wait_primary);
  if (moves) to(decision, *primary, goal);
  return decision;
}

std::optional<Decision> synchronous(const GroupSnapshot& group) {
  const NodeView* primary = steady_primary(group);
  if (primary == nullptr || !told(group, *primary)) return std::nullopt;
  if (primary->goal != NodeState::wait_primary && primary->goal != NodeState::apply_settings) return std::nullopt;
  if (group.names.size() != 1 || group.names.back().names.asynchronous()) return std::nullopt;
  Decision decision = change(primary->name + " is protected by " + to_guc(group.names.back().names));
  return to(decision, *primary, NodeState::primary);
}

// A system that was created elsewhere, or restored, may be on any timeline.
std::optional<Decision> timeline_recorded(const GroupSnapshot& group) {
  const NodeView* primary = steady_primary(group);
  if (primary == nullptr || !healthy(group, *primary) || primary->timeline <= group.promised_timeline) {
    return std::nullopt;
  }
  Decision decision = change(primary->name + " is on timeline " + std::to_string(primary->timeline.value));
  decision.promised_timeline = primary->timeline;
  return decision;
}

constexpr Rule table[] = {
    {{501, "names_confirmed", "the primary has the last list in force, and enough standbys hold everything before it",
      "the older lists are forgotten"},
     confirmed},
    {{503, "new_names", "the list should be another: the secondaries or the settings have changed",
      "the new list is added; primary: apply_settings, or wait_primary without any synchronous standby"},
     new_names},
    {{505, "synchronous", "wait_primary or apply_settings with a synchronous list in force", "primary"}, synchronous},
    {{507, "timeline_recorded", "the primary is on a later timeline than any promotion on record",
      "the timeline is recorded"},
     timeline_recorded},
};

}  // namespace

std::span<const Rule> names_rules() {
  return table;
}

}  // namespace pgvigil::fsm
