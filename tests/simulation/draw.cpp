#include <algorithm>
#include <array>

#include "tests/simulation/faults.hpp"
#include "tests/simulation/random.hpp"

namespace pgvigil::simulation {

const char* to_string(FaultKind kind) {
  static constexpr std::array<const char*, fault_kinds> names{"kill_postgres", "kill_keeper",     "kill_node",
                                                              "pause_keeper",  "pause_postgres",  "pause_node",
                                                              "cut",           "cut_one_way",     "isolate",
                                                              "cut_monitor",   "noise",           "kill_monitor",
                                                              "kill_database", "broken_disk",     "cancel",
                                                              "failover",      "promotion",       "forced_failover",
                                                              "maintenance",   "end_maintenance", "drop",
                                                              "add",           "remove",          "set_sync",
                                                              "set_priority",  "set_quorum",      "restore_monitor",
                                                              "full_disk"};
  return names[static_cast<std::size_t>(kind)];
}

std::string to_string(const Fault& fault) {
  return std::string(to_string(fault.kind)) + " node " + std::to_string(fault.node) + " other " +
         std::to_string(fault.other) + " for " + std::to_string(fault.lasts) + " ms, value " +
         std::to_string(fault.value);
}

namespace {

// Of those of every history; what comes after has numbers of its own.
constexpr int drawn_kinds = static_cast<int>(FaultKind::full_disk);

void add_full_disks(std::uint64_t seed, Time begin, Plan& plan) {
  Random disks(seed * 2 + 9);
  const auto count = disks.between(1, 6);
  for (std::int64_t i = 0; i < count; ++i) {
    plan.faults.push_back({disks.between(begin, plan.storm_ends), FaultKind::full_disk, 1 + disks.index(plan.nodes), 0,
                           disks.between(500, 25000), static_cast<int>(disks.between(0, 99))});
  }
}

}  // namespace

Plan draw_plan(std::uint64_t seed) {
  Random random(seed * 2 + 1);
  Plan plan;
  static constexpr std::array sizes{2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6, 7};
  plan.nodes = sizes[static_cast<std::size_t>(random.index(static_cast<int>(sizes.size())))];
  plan.number_sync_standbys = random.chance(40) ? 0 : random.index(plan.nodes);
  if (plan.number_sync_standbys >= plan.nodes) plan.number_sync_standbys = plan.nodes - 1;
  plan.quiet = random.chance(4);
  plan.priorities = random.chance(30) ? 50 : 0;
  plan.async_nodes = random.chance(20) ? 30 : 0;
  plan.write_every = random.between(40, 400);
  plan.clients = static_cast<std::size_t>(random.chance(50) ? 3 : random.between(4, 60));
  plan.slow = random.chance(30) ? random.between(100, 4000) : 50;
  plan.drift = random.chance(30) ? 20 : 1;
  const Time begin = 8000;
  plan.storm_ends = begin + random.between(10000, 45000);
  if (plan.quiet) {
    plan.priorities = plan.async_nodes = 0;
    plan.slow = 50;
    const auto count = random.between(1, 6);
    Time when = begin;
    for (std::int64_t i = 0; i < count; ++i) {
      static constexpr std::array kinds{FaultKind::pause_keeper, FaultKind::pause_postgres, FaultKind::noise};
      when += random.between(1500, 7000);  // apart: one after the other they are a hang
      const Time lasts = random.between(50, 900);
      plan.faults.push_back(
          {when, kinds[static_cast<std::size_t>(random.index(3))], 1 + random.index(plan.nodes), 1, lasts, 1});
      when += lasts;
    }
    plan.storm_ends = std::max(plan.storm_ends, when);
  } else {
    std::vector<FaultKind> classes;  // swarm: some histories have many kinds of faults, some one kind again and again
    const int percent = static_cast<int>(random.between(8, 60));
    for (int kind = 0; kind < drawn_kinds; ++kind) {
      const auto fault = static_cast<FaultKind>(kind);
      const bool rare = fault == FaultKind::remove || fault == FaultKind::forced_failover || fault == FaultKind::drop ||
                        fault == FaultKind::restore_monitor;
      if (random.chance(rare ? percent / 4 : percent)) classes.push_back(fault);
    }
    if (classes.empty()) classes.push_back(static_cast<FaultKind>(random.index(drawn_kinds)));
    const auto count = random.between(2, 40);
    const bool bursts = random.chance(40);
    Time when = begin;
    for (std::int64_t i = 0; i < count; ++i) {
      // Bursts: several faults within a failover's time, then calm.
      when = bursts && random.chance(70) ? when + random.between(0, 300) : random.between(begin, plan.storm_ends);
      const FaultKind kind = classes[static_cast<std::size_t>(random.index(static_cast<int>(classes.size())))];
      const Time lasts = random.chance(50) ? random.between(20, 3000) : random.between(500, 25000);
      plan.faults.push_back({when, kind, 1 + random.index(plan.nodes + 1), random.index(plan.nodes + 2), lasts,
                             static_cast<int>(random.between(0, 100))});
    }
    if (random.chance(12)) {  // memory is best lost in the middle of what other faults have begun
      const Time beside = plan.faults[static_cast<std::size_t>(random.index(static_cast<int>(count)))].at;
      plan.faults.push_back({beside + random.between(0, 4000), FaultKind::restore_monitor, 1, 0, 1,
                             static_cast<int>(random.between(0, 100))});
    }
  }
  // By numbers of their own: all other histories are as they were.
  if (!plan.quiet && (seed % 32 == 5 || seed % 32 == 13 || seed % 32 == 30)) {
    Random timings(seed * 2 + 7);
    plan.timings = static_cast<Timings>(timings.index(3));
    plan.punctual = seed % 32 == 5;
    if (seed % 32 == 13) plan.late = static_cast<int>(timings.between(40, 130));
    if (timings.chance(40)) {
      plan.later_timings = static_cast<Timings>(timings.index(3));
      plan.timings_change = timings.between(begin, plan.storm_ends);
    }
    if (seed % 64 == 30 && timings.chance(60)) plan.line = timings.between(5, 300);
    if (seed % 64 == 37 || seed % 64 == 45) add_full_disks(seed, begin, plan);
  }
  std::sort(plan.faults.begin(), plan.faults.end(), [](const Fault& a, const Fault& b) { return a.at < b.at; });
  return plan;
}

}  // namespace pgvigil::simulation
