// The states a node reports and is given as its goal. Their meanings: monitor/fsm/README.md.
#pragma once
#include <array>
#include <optional>
#include <string_view>

namespace pgvigil {

enum class NodeState {
  init,
  single,
  wait_primary,
  primary,
  draining,
  demote_timeout,
  demoted,
  wait_standby,
  catchingup,
  secondary,
  prepare_promotion,
  stop_replication,
  report_lsn,
  fast_forward,
  join_secondary,
  apply_settings,
  prepare_maintenance,
  wait_maintenance,
  maintenance,
  dropped,
};

inline constexpr std::array all_node_states{
    NodeState::init,
    NodeState::single,
    NodeState::wait_primary,
    NodeState::primary,
    NodeState::draining,
    NodeState::demote_timeout,
    NodeState::demoted,
    NodeState::wait_standby,
    NodeState::catchingup,
    NodeState::secondary,
    NodeState::prepare_promotion,
    NodeState::stop_replication,
    NodeState::report_lsn,
    NodeState::fast_forward,
    NodeState::join_secondary,
    NodeState::apply_settings,
    NodeState::prepare_maintenance,
    NodeState::wait_maintenance,
    NodeState::maintenance,
    NodeState::dropped,
};

std::string_view to_string(NodeState state);
std::optional<NodeState> parse_node_state(std::string_view text);

// single, wait_primary, primary, apply_settings: PostgreSQL runs read-write.
bool takes_writes(NodeState state);
// draining, demote_timeout, demoted, prepare_maintenance: a former primary whose PostgreSQL is stopped or stopping.
bool being_demoted(NodeState state);
// An order to stop, or to go: it prolongs no lease. The keeper and the monitor both rely on it.
bool ends_lease(NodeState goal);
// PostgreSQL runs as a standby (catchingup, secondary, prepare_promotion, stop_replication, report_lsn, ...).
bool runs_as_standby(NodeState state);

}  // namespace pgvigil
