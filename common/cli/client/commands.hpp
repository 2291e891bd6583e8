// The families of commands; each returns its part of the tree.
#pragma once
#include <vector>

#include "common/cli/cli.hpp"

namespace pgvigil::client {

std::vector<cli::Command> daemon_commands();       // create monitor|postgres, run, drop monitor: handed to the daemons
std::vector<cli::Command> process_commands();      // stop, reload, status
std::vector<cli::Command> show_commands();         // show state|events|settings|standby-names
std::vector<cli::Command> uri_commands();          // show uri
std::vector<cli::Command> systemd_commands();      // show systemd
std::vector<cli::Command> fsm_commands();          // show fsm
std::vector<cli::Command> perform_commands();      // perform failover|switchover|promotion
std::vector<cli::Command> maintenance_commands();  // enable|disable maintenance
std::vector<cli::Command> tls_commands();          // enable|disable ssl
std::vector<cli::Command> membership_commands();   // drop node, create|drop formation
std::vector<cli::Command> settings_commands();     // get|set node ..., get|set formation ...
std::vector<cli::Command> config_commands();       // config get|set|check, version

int show_settings(const cli::Args& args);  // also `get formation settings`

// Replaces this process by the daemon `program` that lies beside it, or in PATH. Returns only by UserError.
[[noreturn]] void exec_daemon(const std::string& program, const std::string& command,
                              const std::vector<std::string>& args);

}  // namespace pgvigil::client
