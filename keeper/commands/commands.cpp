#include "keeper/commands/commands.hpp"

#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "common/cli/monitor_option.hpp"
#include "common/cli/tls_options.hpp"
#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/core_limit.hpp"
#include "common/os/daemon.hpp"
#include "common/os/file.hpp"
#include "common/os/service_manager.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/data_directory.hpp"
#include "keeper/commands/adopt.hpp"
#include "keeper/service/keeper.hpp"
#include "keeper/service/monitor_access.hpp"

namespace pgvigil::keeper {

namespace fs = std::filesystem;
using cli::Args;

namespace {

// Runs one coroutine to its end and gives back its value or its exception.
template <class T>
T run_to_end(asio::io_context& context, asio::awaitable<T> work) {
  std::exception_ptr failure;
  std::optional<T> result;
  asio::co_spawn(context, std::move(work), [&](std::exception_ptr error, T value) {
    failure = error;
    if (!error) result = std::move(value);
    context.stop();
  });
  context.run();
  if (failure) std::rethrow_exception(failure);
  return std::move(*result);
}

std::string absolute(const std::string& path) {
  return fs::absolute(path).lexically_normal().string();
}

std::string pgdata_of(const Args& args) {
  return config::data_directory(args.require("pgdata")).string();
}

// Without --hostname this node would be 127.0.0.1 to the others, which is right where all of them are on one machine.
void refuse_far_monitor(const config::Config& config) {
  const pg::ConninfoMap values = pg::parse_conninfo(config.monitor_uri);
  for (const char* key : {"host", "hostaddr"}) {
    const auto list = values.find(key);
    std::istringstream words(list == values.end() ? "" : list->second);
    for (std::string host; std::getline(words, host, ',');) {
      const bool here = host.empty() || host.front() == '/' || host.front() == '@' || host == "localhost" ||
                        host == "::1" || host.starts_with("127.");
      if (here) continue;
      throw UserError(ExitCode::bad_arguments,
                      "--hostname is missing: the monitor is on another host (" + host +
                          "), and there 127.0.0.1 would not be this one",
                      "give the name or address by which the monitor and the other nodes reach this host");
    }
  }
}

// initdb is told to trust who comes in by the socket as a superuser of another name than the OS user's.
void check_superuser(config::Config& config) {
  const passwd* user = ::getpwuid(::geteuid());
  if (user != nullptr && config.superuser == user->pw_name) config.superuser.clear();
  if (config.superuser.empty() || fs::exists(fs::path(config.pgdata) / "PG_VERSION")) return;
  const std::string directory = config.socket_directory.empty() ? config.state_directory : config.socket_directory;
  struct stat about {};
  if (::stat(directory.c_str(), &about) != 0 || (about.st_mode & 077u) == 0) return;  // one that is made here is closed
  throw UserError(
      ExitCode::bad_arguments,
      directory + " is open to others, and by the socket in it everybody would be the superuser " + config.superuser,
      "chmod 700 " + directory + ", or leave out --username");
}

config::Config config_from(const Args& args) {
  config::Config config;
  config.role = config::Role::keeper;
  config.pgdata = pgdata_of(args);
  config.file = config::config_path_for(config.pgdata, args.maybe("config"));
  const bool is_new = !fs::exists(config.file);
  if (!is_new) {
    config = config::load(config.file, config::Role::keeper);  // a second run continues where the first one stopped
  } else {
    config.state_directory = absolute(args.get("state-directory", config::default_state_directory(config.file)));
  }
  const auto take = [&](const char* option, const char* key) {
    if (const auto value = args.maybe(option)) config::set(config, key, *value);
  };
  const cli::MonitorOption monitor = cli::monitor_option(args, config.monitor_uri);
  config.monitor_uri = monitor.uri;
  if (!monitor.password.empty()) ::setenv("PGPASSWORD", monitor.password.c_str(), 1);  // create() puts it into a file
  if (const auto file = args.maybe("monitor-password-file")) config.monitor_password_file = absolute(*file);
  config.bindir =
      postgres::find_bindir(args.has("pgctl") ? std::optional<fs::path>(args.get("pgctl")) : std::nullopt).string();
  take("pgport", "postgresql.port");
  take("hostname", "node.hostname");
  take("name", "node.name");
  take("formation", "node.formation");
  take("group", "node.group");
  take("dbname", "postgresql.dbname");
  take("auth", "postgresql.auth");
  take("listen", "postgresql.listen_addresses");
  take("username", "postgresql.superuser");
  take("candidate-priority", "replication.candidate_priority");
  take("maximum-backup-rate", "replication.maximum_backup_rate");
  if (args.has("replication-quorum")) config.replication_quorum = args.boolean("replication-quorum", true);
  if (args.has("skip-pg-hba")) config.manage_hba = false;
  if (is_new && !args.has("hostname")) refuse_far_monitor(config);
  cli::choose_tls(config, args, is_new);
  fit_into_debian(config, args, is_new);
  if (args.has("username")) check_superuser(config);
  return config;
}

asio::awaitable<std::string> system_identifier(const postgres::Instance& instance) {
  if (!instance.has_cluster()) co_return std::string();
  const postgres::ControlData control = co_await instance.control_data();
  co_return control.system_identifier;
}

asio::awaitable<pg::Connection> connect_to_monitor(const config::Config& config, const std::string& conninfo) {
  std::optional<pg::ConnectionError> failure;
  try {
    co_return co_await pg::Connection::connect(conninfo, pg::Millis{5000});
  } catch (const pg::ConnectionError& error) {
    failure = error;
  }
  throw UserError(ExitCode::monitor, "cannot talk to the monitor (" + config.monitor_uri + "): " + failure->what(),
                  failure->kind == pg::ConnectionError::Kind::rejected
                      ? "give --monitor-password-file: a copy of the file that `pgvigil create monitor` named"
                      : "is `pgvigil run` alive on its host, and can it be reached from here?");
}

asio::awaitable<monitor_api::Registered> register_with_patience(const config::Config& config, std::string sysid,
                                                                std::optional<NodeId> known) {
  const std::string conninfo = registration_conninfo(config);
  std::string last;
  for (int attempt = 0; attempt < 600; ++attempt) {
    pg::Connection monitor = co_await connect_to_monitor(config, conninfo);
    monitor_api::Registration registration;
    registration.formation = config.formation;
    registration.group = config.group;
    registration.name = config.name;
    registration.host = config.hostname;
    registration.port = config.port;
    registration.dbname = config.dbname;
    registration.system_identifier = sysid;
    registration.candidate_priority = config.candidate_priority;
    registration.replication_quorum = config.replication_quorum;
    registration.known_id = known;
    std::optional<pg::SqlError> refused;
    try {
      co_return co_await monitor_api::register_node(monitor, registration);
    } catch (const pg::SqlError& error) {
      refused = error;
    }
    if (refused->sqlstate != "PV001")
      throw UserError(ExitCode::bad_arguments, std::string("the monitor refuses: ") + refused->what(), refused->hint);
    if (last != refused->what()) log::info("the monitor asks to wait: {}", refused->what());
    last = refused->what();
    co_await os::sleep_for(pg::Millis{500});
  }
  throw UserError(ExitCode::monitor, "the monitor does not take this node: " + last, "pgvigil show state");
}

// Registers, and leaves configuration, state file and passwords behind. Nothing runs yet.
asio::awaitable<int> create(config::Config config) {
  const auto known = load_state(config.state_directory);
  postgres::Instance instance(instance_settings(config));
  if (instance.postmaster() && !known) co_await check_running(instance, config.hostname);
  if (!instance.has_cluster() && !instance.directory_is_empty() && !known) {
    throw UserError(ExitCode::bad_arguments, config.pgdata + " is not empty and holds no PostgreSQL cluster",
                    "empty it, or choose another --pgdata");
  }
  if (!known) postgres::refuse_mount_point(config.pgdata);
  os::make_directories(config.pgdata, 0700);  // a node that cannot have one is not registered
  co_await cli::provide_certificate(config, false);
  const std::string sysid = co_await system_identifier(instance);
  std::optional<NodeId> id;
  if (known) id = known->node;
  const monitor_api::Registered registered = co_await register_with_patience(config, sysid, id);
  config.name = registered.name;
  const char* password = std::getenv("PGPASSWORD");
  const bool in_environment = password != nullptr && *password != '\0';
  if (config.monitor_password_file.empty() && in_environment) cli::keep_monitor_password(config, password);
  const Node node{config, registered.id};
  write_passfile(node, {registered.replication_password, registered.probe_password});
  if (!known || known->node != registered.id) {
    KeeperState state;
    state.node = registered.id;
    state.name = registered.name;
    save_state(config.state_directory, state);
  }
  pg::Connection monitor = co_await connect_to_monitor(config, registration_conninfo(config));
  co_await admit(monitor, node);
  config::save(config);
  std::cout << "node " << registered.name << " (" << registered.id.value
            << ") is registered; configuration: " << config.file.string() << std::endl;
  if (const std::string unit = config::unit_of(config); !unit.empty())
    std::cout << "start it, as root: systemctl enable --now " << unit << std::endl;
  co_return 0;
}

void read_again(Keeper& keeper, const config::Config& running) {
  try {
    config::Config fresh = config::load(running.file, config::Role::keeper);
    for (const std::string& key : config::keep_fixed(running, fresh))
      log::warn("{} counts from the next start of the keeper on", key);
    log::setup("pgvigil-keeper", fresh.log_level, fresh.log_format);
    for (const std::string& former : fresh.without_effect) log::warn("{} has no effect any more", former);
    keeper.reload(std::move(fresh));
    log::info("configuration read again");
  } catch (const std::exception& error) {
    log::error("configuration not changed: {}", error.what());
  }
}

int serve(const config::Config& config) {
  os::refuse_root();
  os::forbid_core_dumps();
  os::clear_postgres_environment();
  log::setup("pgvigil-keeper", config.log_level, config.log_format);
  for (const std::string& former : config.without_effect) log::warn("{} has no effect any more", former);
  const auto lock = os::PidFile::acquire(fs::path(config.state_directory) / "pid");
  if (!lock)
    throw UserError(ExitCode::bad_state, "the keeper of " + config.pgdata + " runs already",
                    "pgvigil status --pgdata " + config.pgdata);
  auto state = load_state(config.state_directory);
  if (!state)
    throw UserError(ExitCode::bad_state, "there is no state file in " + config.state_directory,
                    "run `pgvigil create postgres` again");
  if (state->reported == NodeState::dropped) {
    throw UserError(ExitCode::dropped, "this node was dropped from its formation",
                    "pgvigil drop node --pgdata " + config.pgdata + ", then create it again");
  }
  const fs::path program = os::this_program();
  os::ServiceManager manager;
  asio::io_context context(1);
  Keeper keeper(context, config, *state);
  int asked_to_stop = 0;
  os::handle_signals(context, [&](int number) {
    if (number == SIGHUP) return read_again(keeper, config);
    if (number == SIGUSR2) {
      keeper.let_go();
      return;
    }
    asked_to_stop = number;
    // Each way of stopping PostgreSQL has its own time: fast, then immediate.
    manager.stopping(std::chrono::seconds{config.switchover_on_stop + 2 * config.stop + 30});
    if (number == SIGTERM) {
      keeper.leave();
    } else {
      keeper.stop(number == SIGQUIT ? postgres::StopMode::immediate : postgres::StopMode::fast);
    }
  });
  // Ready to take orders. A base backup may take hours: whether PostgreSQL serves is in the status.
  manager.ready();
  asio::co_spawn(context, manager.attend([&] { return keeper.describe(); }), asio::detached);
  const ExitCode code = run_to_end(context, keeper.run());
  if (keeper.has_let_go()) {
    os::last_signals(context);
    if (asked_to_stop != 0) ::raise(asked_to_stop);  // for the one that comes
    os::start_anew(program, {"run", "--config", config.file.string()});
  }
  return static_cast<int>(code);
}

// What a refusal leaves is what was there before.
void register_and_save(config::Config config, const Args& args) {
  const bool made = !fs::exists(config.state_directory);
  const bool made_pgdata = !fs::exists(config.pgdata);
  const bool first_time = !fs::exists(config.file);
  os::make_directories(config.state_directory, 0700);
  asio::io_context context(1);
  const auto work = [&]() -> asio::awaitable<int> {
    co_await fit_programs(config, args);
    postgres::Settings kept;
    if (!load_state(config.state_directory)) {  // else its keeper does that, and may be at it
      postgres::Instance instance(instance_settings(config));
      co_await instance.clear_unfinished_initdb();
    }
    if (first_time) kept = co_await adopt_cluster(config, args);
    const int code = co_await create(config);
    write_kept(config, kept);
    co_return code;
  };
  try {
    run_to_end(context, work());
  } catch (...) {
    std::error_code error;
    if (first_time) {
      for (const fs::path& own : cli::own_certificate(config)) fs::remove(own, error);
    }
    if (made) fs::remove(config.state_directory, error);  // unless something is in it
    if (made_pgdata) fs::remove(config.pgdata, error);
    throw;
  }
}

int run_create(const Args& args) {
  os::refuse_root();
  log::setup("pgvigil-keeper", cli::log_level(args, "info"), "text");
  const config::Config config = config_from(args);
  register_and_save(config, args);
  return args.has("run") ? serve(config::load(config.file)) : 0;
}

int run(const Args& args) {
  const fs::path file =
      args.has("config") ? config::config_named(args.get("config")) : config::config_path_for(pgdata_of(args));
  config::Config config = config::load(file, config::Role::keeper);
  config.log_level = cli::log_level(args, config.log_level);
  return serve(config);
}

// The local half of `drop node --pgdata`: what is left here is a plain PostgreSQL, stopped, or with `destroy` nothing.
// `force`: the monitor has not been heard to have dropped it.
asio::awaitable<int> drop(config::Config config, bool destroy, bool force) {
  const auto state = load_state(config.state_directory);
  if (state && state->reported != NodeState::dropped && !force) {
    throw UserError(ExitCode::bad_arguments, "node " + state->name + " is still part of its formation",
                    "pgvigil drop node --name " + state->name + " first");
  }
  if (os::PidFile::holder(fs::path(config.state_directory) / "pid")) {
    throw UserError(ExitCode::bad_arguments, "the keeper of " + config.pgdata + " still runs",
                    "pgvigil stop --pgdata " + config.pgdata);
  }
  postgres::Instance instance(instance_settings(config));
  if (destroy || force) co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{60});
  if (destroy) {
    postgres::empty_cluster(config.pgdata);
    fs::remove(instance.initdb_marker());
  }
  if (!instance.postmaster()) {
    fs::remove(DiskWatch::file(config.pgdata));
    postgres::remove_own_lines(config.pgdata, instance.config_file(), instance.hba_file(), config.manage_hba);
    for (const fs::path& own : cli::own_certificate(config)) fs::remove(own);
  }
  for (const char* name : {"keeper.json", "pgpass", "monitor-password", "own-credential", "copy-in-progress"})
    fs::remove(fs::path(config.state_directory) / name);
  fs::remove(config.file);
  co_return 0;
}

int run_drop(const Args& args) {
  const config::Config config = config::load(config::config_path_for(pgdata_of(args)), config::Role::keeper);
  os::become_owner_of(config.state_directory);
  asio::io_context context(1);
  return run_to_end(context, drop(config, args.has("destroy"), args.has("force")));
}

}  // namespace

cli::Program program() {
  const cli::Option pgdata{"pgdata", "DIR", "data directory", {"PGDATA"}};
  const cli::Option file{"config", "FILE", "its configuration, or the name of it without directory and .toml"};
  std::vector<cli::Option> create_options{
      pgdata,
      {"config", "FILE", "where its configuration is to be, or the name of it alone (made of --pgdata)"},
      {"monitor", "URI", "connection string of the monitor's database", {"PGVIGIL_MONITOR", "PG_AUTOCTL_MONITOR"}},
      {"monitor-password-file", "FILE", "file (mode 0600) with the password for it"},
      {"pgport", "PORT", "port of PostgreSQL (that of the cluster, else 5432)", {"PGPORT"}},
      {"hostname", "HOST",
       "name or address by which the other nodes reach this one (127.0.0.1, where the monitor is on this host)"},
      {"name", "NAME", "name of the node (chosen by the monitor)"},
      {"formation", "NAME", "formation (default)"},
      {"group", "N", "group of the formation (0)"},
      {"dbname", "NAME", "the application's database (postgres); made when missing"},
      {"auth", "METHOD", "scram-sha-256 (default) or trust, for the nodes' connections to each other"},
      {"listen", "ADDRESSES", "listen_addresses (*)"},
      {"username", "NAME", "PostgreSQL superuser (the OS user)"},
      {"pgctl", "FILE", "pg_ctl of the PostgreSQL to use"},
      {"config-file", "FILE", "postgresql.conf, when it lies outside PGDATA (Debian's is found)"},
      {"state-directory", "DIR", "where the keeper keeps its state, passwords and the server's log"},
      {"candidate-priority", "0..100", "who is preferred in a failover; 0: never promoted (50)"},
      {"replication-quorum", "BOOL", "whether its confirmation counts for commits (true)"},
      {"maximum-backup-rate", "RATE", "of pg_basebackup (100M)"},
      {"skip-pg-hba", "", "leave pg_hba.conf to me"},
      {"run", "", "stay in the foreground and run the keeper"}};
  for (const cli::Option& option : cli::tls_options(true)) create_options.push_back(option);
  cli::Program program;
  program.name = "pgvigil-keeper";
  program.summary = "the agent of one data node";
  program.commands.push_back(
      {"create", "make a data node and register it with a monitor", create_options, {}, run_create});
  program.commands.push_back({"run", "run the keeper in the foreground", {pgdata, file}, {}, run});
  program.commands.push_back({"drop",
                              "remove what is left here of a node that has been dropped",
                              {pgdata,
                               {"destroy", "", "also empty PGDATA and its tablespaces"},
                               {"force", "", "although its monitor may still know it"}},
                              {},
                              run_drop});
  program.common = cli::log_options();
  return program;
}

}  // namespace pgvigil::keeper
