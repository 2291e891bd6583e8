// The keeper's state machine: for every state that a node can be in and every goal that the monitor can give it, the
// steps that lead there. Pure. A step may be interrupted at any point (kill -9) and run again; the state is reported as
// reached after the last one.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "common/model/node_state.hpp"

namespace pgvigil::keeper {

enum class Step {
  create_cluster,     // initdb, or take over what is in PGDATA
  configure_primary,  // settings of a primary with the goal's names, HBA for the peers; reload when it runs
  keep_running,     // a standby goes on (and can vote) while its upstream is away; nothing when PGDATA is an unfinished
                    // copy
  start,            // the postmaster, and wait until it accepts sessions
  create_roles,     // replication and probe roles, the database; slots for the peers
  checkpoint,       // while writes go on, so that the stop after it is short
  stop,             // fast; waits until every process has gone
  prepare_standby,  // base backup into an empty PGDATA; pg_rewind (or base backup) when the history has parted from the
                    // upstream's
  configure_standby,  // settings of a standby of the goal's upstream, standby.signal; reload when it runs
  cut_off,            // no upstream, by reload; wait until the walreceiver has gone and everything received is on disk
  fetch,              // wait until all that the upstream holds has been received
  release,            // a stopped PostgreSQL would start as a standby without upstream; a running one is left alone
  arm,                // before a promotion: PostgreSQL is told that commits wait at all
  promote,            // no-op on a primary; begins a timeline that no other promotion can have begun
  secure_timeline,    // checkpoint on the new timeline (rewinds of others need it); in the background
};
std::string_view to_string(Step step);

using Plan = std::vector<Step>;

// The way from `reported` to `goal`; with reported == goal, what keeps the node there (also after PostgreSQL or the
// host has crashed). nullopt: the monitor's table never asks for this.
std::optional<Plan> plan(NodeState reported, NodeState goal);

}  // namespace pgvigil::keeper
