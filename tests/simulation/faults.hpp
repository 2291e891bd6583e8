// What goes wrong in one history, drawn before it begins: which classes of faults, how often, when, to whom.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace pgvigil::simulation {

using Time = std::int64_t;

enum class FaultKind : std::uint8_t {
  kill_postgres,
  kill_keeper,
  kill_node,
  pause_keeper,
  pause_postgres,
  pause_node,
  cut,
  cut_one_way,
  isolate,
  cut_monitor,
  noise,
  kill_monitor,
  kill_database,
  broken_disk,
  cancel,
  failover,
  promotion,
  forced_failover,
  maintenance,
  end_maintenance,
  drop,
  add,
  remove,
  set_sync,
  set_priority,
  set_quorum,
  restore_monitor,
  full_disk
};
inline constexpr int fault_kinds = static_cast<int>(FaultKind::full_disk) + 1;
const char* to_string(FaultKind kind);

struct Fault {
  Time at{0};
  FaultKind kind{FaultKind::kill_postgres};
  int node{1};
  int other{1};
  Time lasts{0};
  int value{0};
};
std::string to_string(const Fault& fault);

enum class Timings : std::uint8_t { fast, ordinary, wan };  // as sql/110_client_api.sql names them

struct Plan {
  int nodes{3};
  int number_sync_standbys{0};
  bool quiet{false};   // small disturbances only: no role may change
  int priorities{0};   // per cent of nodes with another priority than 50
  int async_nodes{0};  // per cent of nodes without replication quorum
  Time write_every{100};
  std::size_t clients{3};  // how many commits may wait at once
  Time slow{0};            // checkpoints and recoveries take up to this longer
  int drift{0};            // per mille that clocks may differ
  Time storm_ends{0};
  Timings timings{Timings::ordinary};
  Timings later_timings{Timings::ordinary};  // an operator sets them in the middle of the storm
  Time timings_change{0};                    // 0: never
  bool punctual{false};                      // keepers that have nothing to say are heard with each heartbeat
  int late{0};                               // or so late, per cent of unhealthy_after, all the time
  Time line{0};                              // what every message takes, when it is more than a moment
  std::vector<Fault> faults;
};
Plan draw_plan(std::uint64_t seed);

}  // namespace pgvigil::simulation
