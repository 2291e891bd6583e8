// When a primary must stop by itself (rules S1 and S2), and when it may start. Pure: all times are ages by a monotonic
// clock.
#pragma once
#include <chrono>
#include <optional>
#include <string_view>

#include "common/model/node_state.hpp"

namespace pgvigil::keeper {

struct Contact {
  NodeState state{NodeState::init};  // reported
  bool asynchronous{true};           // the names in force need no other node
  // Since the last report that the monitor answered was *sent*; since this keeper started when there was none.
  std::chrono::milliseconds monitor_age{0};
  // Since a standby was last seen streaming from here; since this keeper started when there was none.
  std::chrono::milliseconds standby_age{0};
  std::chrono::milliseconds lease{10000};
};

// Why PostgreSQL must be stopped now; nullopt when it may run.
//  - single: nobody else holds the data, so nobody can be promoted: never.
//  - asynchronous: commits need nobody, so an operator's forced failover can only wait for the lease: the monitor alone
//  renews it.
//  - synchronous: the fence by quorum protects it; it goes on without the monitor, and stops when the standbys are gone
//  too.
std::optional<std::string_view> must_fence(const Contact& contact);

// How often to look, and how long a stopping PostgreSQL has before it is killed. Together an eighth of the lease at
// most: who waits for the end of a lease waits for 1.2 of it (lease_holders, monitor/fsm/predicates.hpp), and the rest
// of that margin is for clocks and for the processes' end.
struct FencePace {
  std::chrono::milliseconds look;
  std::chrono::milliseconds grace;
};
FencePace fence_pace(std::chrono::milliseconds lease);

}  // namespace pgvigil::keeper
