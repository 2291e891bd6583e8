// enable monitor: of the local node, while it runs.
#include "common/cli/client/enable_monitor.hpp"

#include <csignal>

#include "common/cli/client/context.hpp"
#include "common/cli/client/local.hpp"
#include "common/cli/monitor_option.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/daemon.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

namespace {

pg::ConninfoMap keepers_values(const config::Config& config) {
  pg::ConninfoMap values = pg::parse_conninfo(config.monitor_uri);
  values.merge(config::shown_certificate(config));
  values.try_emplace("application_name", "pgvigil");
  return values;
}

// It lets in whom nodes are registered by, and has the formation.
void enter_as_registered(const config::Config& config, const std::string& password) {
  pg::ConninfoMap values = keepers_values(config);
  if (!password.empty()) {
    values["password"] = password;
  } else if (!config.monitor_password_file.empty()) {
    values["password"] = os::read_secret_file(config.monitor_password_file);
  }
  pg::BlockingConnection monitor(pg::to_conninfo(values));
  monitor.query("select from pgvigil.current_state($1::text, null)", {config.formation});
}

// It knows the node, and gave it this credential: a monitor that was moved, or restored from a backup.
void enter_as_node(const config::Config& config) {
  pg::ConninfoMap values = keepers_values(config);
  values["user"] = monitor_api::keeper_role(NodeId{integer_of(local_state(config), "nodeId")});
  values["password"] = os::read_secret_file(std::filesystem::path(config.state_directory) / "own-credential");
  const pg::BlockingConnection monitor(pg::to_conninfo(values));
}

// "" when the node gets in, else why not.
std::string refusal_of_node(const config::Config& config) {
  try {
    enter_as_node(config);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

// With what the keeper will have, and nothing else: it does not see the environment of this command.
void check_entrance(const config::Config& config, const std::string& password) {
  std::string refusal;
  try {
    return enter_as_registered(config, password);
  } catch (const pg::SqlError& error) {
    if (error.sqlstate.starts_with("PV")) throw UserError(ExitCode::bad_arguments, error.what(), error.hint);
    throw UserError(ExitCode::monitor,
                    "the monitor answers (" + config.monitor_uri + "), but not as one: " + error.what(),
                    "is it pgvigil's database, and of the same version as this program (`pgvigil version`)?");
  } catch (const Error& error) {
    refusal = error.what();
  }
  const std::string own = refusal_of_node(config);
  if (own.empty()) return;
  throw UserError(
      ExitCode::monitor,
      "the keeper could not get in at the monitor (" + config.monitor_uri + "): " + refusal + "; as the node: " + own,
      "give --monitor-password-file: a copy of the file that `pgvigil create monitor` named. Nothing was "
      "changed");
}

// The node tells the new monitor what it knows, when that one does not (monitor/fsm/README.md, "A monitor without
// memory").
int enable_monitor(const Args& args) {
  config::Config config = load_own_config(args);
  if (config.role != config::Role::keeper) {
    throw UserError(ExitCode::bad_arguments, config.pgdata + " is a monitor's", "run this on each data node");
  }
  cli::MonitorOption monitor = cli::monitor_option(args, "");
  config::set(config, "monitor.uri", monitor.uri);
  if (const auto file = args.maybe("monitor-password-file")) {
    config::set(config, "monitor.password_file", std::filesystem::absolute(*file).string());
    monitor.password.clear();
  }
  os::clear_postgres_environment();
  check_entrance(config, monitor.password);
  if (!monitor.password.empty()) cli::keep_monitor_password(config, monitor.password);
  config::save(config);
  if (const auto pid = daemon_pid(config)) send_signal(*pid, SIGHUP, ExitCode::reload);
  note(args, "the node of " + config.pgdata + " has its orders from " + monitor.uri + " from now on");
  return 0;
}

}  // namespace

Command enable_monitor_command() {
  return {
      "enable monitor",
      "give the node another monitor, for instance one that replaces a lost one",
      {pgdata_option(),
       {"monitor", "URI", "connection string of the new monitor's database", {"PGVIGIL_MONITOR", "PG_AUTOCTL_MONITOR"}},
       {"monitor-password-file", "FILE",
        "file (mode 0600) with the password for it; else one in PGPASSWORD is kept for the keeper"}},
      {},
      enable_monitor,
      "Run it on every node of the formation. The monitor learns from them what it does not know. Nothing is changed\n"
      "when the keeper could not get in there."};
}

}  // namespace pgvigil::client
