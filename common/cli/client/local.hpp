// What can be said of the local node without asking anybody: from its files and its processes.
#pragma once
#include <boost/json.hpp>
#include <optional>
#include <string>

#include "common/config/config.hpp"

namespace pgvigil::client {

namespace json = boost::json;

// The pid of the node's daemon, nullopt when it does not run.
std::optional<int> daemon_pid(const config::Config& config);
// Throws UserError(when_refused); a process that has gone is none.
void send_signal(int pid, int number, ExitCode when_refused);

// {pgdata, pg_ctl, version, host, port, proxyport, pid, in_recovery, control: {...}, postmaster: {status}}; pid 0: not
// running. postmaster.status is "ready", or what postmaster.pid says, or "not running".
json::object local_postgres(const config::Config& config);
// The status word of it.
std::string postgres_word(const json::object& postgres);

// {name, current_role, assigned_role, groupId, nodeId, term, timeline, sslmode} of a keeper's state file; throws
// UserError(bad_state).
json::object local_state(const config::Config& config);

}  // namespace pgvigil::client
