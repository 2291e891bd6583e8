#include "monitor/commands/commands.hpp"

#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <iostream>

#include "common/cli/tls_options.hpp"
#include "common/config/config.hpp"
#include "common/log/log.hpp"
#include "common/os/core_limit.hpp"
#include "common/os/daemon.hpp"
#include "common/os/file.hpp"
#include "common/os/race.hpp"
#include "common/os/service_manager.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/certificate_watch.hpp"
#include "common/postgres/config_files.hpp"
#include "common/postgres/debian_layout.hpp"
#include "common/postgres/instance.hpp"
#include "monitor/service/monitor.hpp"
#include "monitor/service/witness.hpp"

namespace pgvigil::monitor {

namespace fs = std::filesystem;
using cli::Args;

namespace {

constexpr const char* database_name = "pgvigil";
constexpr const char* node_role = "pgvigil_node";
constexpr const char* keeper_roles = "+pgvigil_keeper";  // its members
constexpr int other_sessions = 100;                      // command lines, dashboards, the monitor itself

std::string absolute(const std::string& path) {
  return fs::absolute(path).lexically_normal().string();
}
fs::path password_file(const config::Config& config) {
  return fs::path(config.state_directory) / "node-password";
}
fs::path witness_file(const config::Config& config) {
  return fs::path(config.state_directory) / "witness";
}

postgres::InstanceSettings instance_settings(const config::Config& config) {
  postgres::InstanceSettings settings;
  settings.pgdata = config.pgdata;
  settings.bindir = config.bindir;
  settings.log = fs::path(config.state_directory) / "postgresql.log";
  settings.socket_directory = config.socket_directory.empty() ? config.state_directory : config.socket_directory;
  settings.listen_addresses = config.listen_addresses;
  settings.port = config.port;
  settings.superuser = config.superuser;
  return settings;
}

bool embedded(const config::Config& config) {
  return config.database_uri.empty();
}

std::string owner_conninfo(const config::Config& config) {
  return embedded(config) ? postgres::Instance(instance_settings(config)).local_conninfo(database_name)
                          : config.database_uri;
}

std::string node_uri(const config::Config& config) {
  pg::ConninfoMap values{
      {"user", node_role}, {"host", config.hostname}, {"port", std::to_string(config.port)}, {"dbname", database_name}};
  if (!embedded(config)) {
    const auto given = pg::parse_conninfo(config.database_uri);
    for (const char* key : {"host", "port", "dbname"}) {
      if (const auto value = given.find(key); value != given.end()) values[key] = value->second;
    }
  }
  if (config.ssl) values["sslmode"] = config.ssl_mode;
  if (config.ssl && !config.ssl_ca_file.empty()) values["sslrootcert"] = config.ssl_ca_file;
  return pg::to_uri(values);
}

void write_files(const config::Config& config) {
  const postgres::Instance instance(instance_settings(config));
  const auto settings = instance_settings(config);
  postgres::Settings wanted{{"listen_addresses", config.listen_addresses},
                            {"port", std::to_string(config.port)},
                            {"unix_socket_directories", settings.socket_directory.string()},
                            {"password_encryption", "scram-sha-256"},
                            // One session for each keeper.
                            {"max_connections", std::to_string(config.max_nodes + other_sessions)},
                            // A keeper whose host has gone must not keep its session's lock for hours.
                            {"tcp_keepalives_idle", "3"},
                            {"tcp_keepalives_interval", "1"},
                            {"tcp_keepalives_count", "3"},
                            {"tcp_user_timeout", "5000"}};
  if (config.ssl) {
    wanted["ssl"] = "on";
    wanted["ssl_cert_file"] = config.ssl_cert_file;
    wanted["ssl_key_file"] = config.ssl_key_file;
    wanted["ssl_ca_file"] = config.ssl_ca_file;
  }
  bool changed = postgres::write_settings(config.pgdata, instance.config_file(), wanted);
  if (config.manage_hba) {
    std::vector<postgres::HbaEntry> entries;
    for (const char* role : {node_role, keeper_roles}) {
      for (const char* everywhere : {"0.0.0.0/0", "::/0"})
        entries.push_back({config.ssl ? "hostssl" : "host", database_name, role, everywhere,
                           config.auth + config::asked_certificate(config)});
      entries.push_back({"host", "all", role, "all", "reject"});  // whatever initdb allows on this machine
    }
    changed = postgres::write_hba(instance.hba_file(), entries) || changed;
  }
  if (changed) instance.reload();
}

asio::awaitable<void> prepare_database(config::Config config) {
  if (embedded(config)) {
    const std::string conninfo = postgres::Instance(instance_settings(config)).local_conninfo();
    pg::Connection server = co_await pg::Connection::connect(conninfo, pg::Millis{5000});
    const pg::Result found = co_await server.query("SELECT FROM pg_database WHERE datname = 'pgvigil'");
    if (found.rows() == 0) co_await server.query("CREATE DATABASE pgvigil", {}, pg::Millis{60000});
  }
  pg::Connection database = co_await pg::Connection::connect(owner_conninfo(config), pg::Millis{5000});
  co_await migrate(database, embedded(config));
  // Nodes may register before the monitor runs: a database that begins here is no other one later.
  if (const Witness born = co_await take_witness(database); born.generation == 0)
    save_witness(witness_file(config), born);
  if (!fs::exists(password_file(config)))
    os::write_file_atomic(password_file(config), os::random_secret() + "\n", 0600);
  const std::string password = os::read_secret_file(password_file(config));
  // A verifier: statistics and samples keep the statement.
  const std::string sql =
      std::string("SET log_statement = 'none'; SET log_min_error_statement = 'panic'; ALTER ROLE ") + node_role +
      " LOGIN PASSWORD " + pg::quote_literal(database.scram_verifier(node_role, password));
  co_await database.query(sql, {}, pg::Millis{10000});
}

asio::awaitable<void> create(config::Config config) {
  postgres::Instance instance(instance_settings(config));
  if (!embedded(config)) {
    co_await prepare_database(config);
    co_return;
  }
  const bool was_running = instance.postmaster().has_value();
  if (!instance.has_cluster()) {
    if (!instance.directory_is_empty() && !instance.initdb_unfinished()) {
      throw UserError(ExitCode::bad_arguments, config.pgdata + " is not empty and holds no PostgreSQL cluster",
                      "empty it, or choose another --pgdata");
    }
    co_await instance.initdb(config.auth);
  }
  co_await cli::provide_certificate(config, false);
  write_files(config);
  co_await instance.start(std::chrono::seconds{config.start});
  co_await prepare_database(config);
  if (!was_running) co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{config.stop});
}

// Keeps the embedded PostgreSQL up: starts it, waits for its end, starts it again.
asio::awaitable<void> supervise(postgres::Instance& instance, const bool& stopping, int start_seconds) {
  while (!stopping) {
    std::string failure;
    try {
      co_await instance.start(std::chrono::seconds{start_seconds});
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) {
      log::error("the monitor's PostgreSQL: {}", failure);
      co_await os::sleep_for(pg::Millis{1000});
      continue;
    }
    const auto process = instance.postmaster();
    if (process && co_await process->wait_exit(std::chrono::hours{24}) && !stopping)
      log::error("the monitor's PostgreSQL has ended; starting it again");
  }
}

asio::awaitable<void> wait_until(const bool& flag) {
  while (!flag) co_await os::sleep_for(pg::Millis{50});
}

void run_to_end(asio::io_context& context, asio::awaitable<void> work) {
  std::exception_ptr failure;
  asio::co_spawn(context, std::move(work), [&](std::exception_ptr error) {
    failure = error;
    context.stop();
  });
  context.run();
  if (failure) std::rethrow_exception(failure);
}

// The rest counts from the next start on.
void read_again(const config::Config& running, Monitor& monitor, postgres::CertificateWatch& certificates) {
  try {
    const config::Config fresh = config::load(running.file, config::Role::monitor);
    log::setup("pgvigil-monitor", fresh.log_level, fresh.log_format);
    if (embedded(running)) {
      config::Config now = running;
      now.ssl = fresh.ssl;
      now.ssl_ca_file = fresh.ssl_ca_file;
      now.ssl_cert_file = fresh.ssl_cert_file;
      now.ssl_key_file = fresh.ssl_key_file;
      now.ssl_client_certificates = fresh.ssl_client_certificates;
      write_files(now);
      postgres::Instance(instance_settings(running)).reload();  // also for another certificate in the same file
      monitor.trust(fresh.ssl_ca_file);
      certificates.look_at(now);
    }
    log::info("configuration read again: [log] and [ssl] count at once");
  } catch (const std::exception& error) {
    log::error("configuration not changed: {}", error.what());
  }
}

// How the service is to end, by the signals that have come.
struct Ending {
  bool stopping{false};
  bool anew{false};  // in this process, and its PostgreSQL goes on
  int stop_signal{0};
  postgres::StopMode mode{postgres::StopMode::fast};

  void take(int number) {
    if (number == SIGUSR2 && stopping) return;  // a stop stays a stop
    if (number == SIGQUIT) mode = postgres::StopMode::immediate;
    if (!stopping) anew = number == SIGUSR2;
    if (number != SIGUSR2) stop_signal = number;
    stopping = true;
  }
};

asio::awaitable<void> decide(const config::Config& config, postgres::Instance& instance, Monitor& monitor,
                             const Ending& ending) {
  if (!embedded(config)) {
    co_await os::race(monitor.run(), wait_until(ending.stopping));
    co_return;
  }
  write_files(config);
  // Whatever ends the service, its PostgreSQL is not left behind.
  std::exception_ptr failure;
  try {
    co_await os::race(monitor.run(), supervise(instance, ending.stopping, config.start), wait_until(ending.stopping));
  } catch (...) {
    failure = std::current_exception();
  }
  if (!ending.anew || failure) {
    log::info("stopping the monitor's PostgreSQL");
    co_await instance.stop(ending.mode, std::chrono::seconds{config.stop});
  }
  if (failure) std::rethrow_exception(failure);
}

int serve(const config::Config& config) {
  if (embedded(config)) {
    os::refuse_root();
    os::clear_postgres_environment();  // with --database-uri, its password may be there
  }
  log::setup("pgvigil-monitor", config.log_level, config.log_format);
  for (const std::string& former : config.without_effect) log::warn("{} has no effect any more", former);
  const auto lock = os::PidFile::acquire(fs::path(config.state_directory) / "pid");
  if (!lock)
    throw UserError(ExitCode::bad_state, "the monitor of " + config.pgdata + " runs already",
                    "pgvigil status --pgdata " + config.pgdata);
  os::raise_file_limit();
  os::forbid_core_dumps();
  asio::io_context context(1);
  postgres::Instance instance(instance_settings(config));
  Monitor monitor(context, owner_conninfo(config), embedded(config), witness_file(config));
  monitor.trust(config.ssl_ca_file);
  postgres::CertificateWatch certificates(context.get_executor());
  certificates.look_at(config);
  asio::co_spawn(context, certificates.run(), asio::detached);
  const fs::path program = os::this_program();
  os::ServiceManager manager;
  Ending ending;
  os::handle_signals(context, [&](int number) {
    if (number == SIGHUP) return read_again(config, monitor, certificates);
    ending.take(number);
    if (ending.stop_signal != 0) manager.stopping(std::chrono::seconds{2 * config.stop + 30});
    monitor.stop();
  });
  // Keepers on the same host are started after this unit, so that they end before it: they must not wait for long.
  const auto patience_ends = std::chrono::steady_clock::now() + std::chrono::seconds{15};
  const auto describe = [&]() -> std::string {
    if (monitor.deciding() || std::chrono::steady_clock::now() >= patience_ends) manager.ready();
    if (!monitor.deciding()) return "waiting for its database";
    return "deciding for " + std::to_string(monitor.nodes()) + " nodes" +
           (certificates.notice().empty() ? "" : "; " + certificates.notice());
  };
  asio::co_spawn(context, manager.attend(describe), asio::detached);
  run_to_end(context, decide(config, instance, monitor, ending));
  if (ending.anew) {
    log::info("starts anew; its PostgreSQL goes on");
    os::last_signals(context);
    if (ending.stop_signal != 0) ::raise(ending.stop_signal);  // for the one that comes
    os::start_anew(program, {"run", "--config", config.file.string()});
  }
  return 0;
}

// A new monitor encrypts what its nodes send, unless it is told not to.
void take_tls(config::Config& config, const Args& args, bool is_new) {
  if (embedded(config)) return cli::choose_tls(config, args, is_new);
  if (cli::asks_for_tls(args))
    throw UserError(ExitCode::bad_arguments, "with --database-uri, TLS is that PostgreSQL's own",
                    "set it up there, and put sslmode into the URI for the nodes");
}

config::Config config_from(const Args& args) {
  config::Config config;
  config.role = config::Role::monitor;
  config.listen_addresses = "*";
  const std::string pgdata = config::data_directory(args.require("pgdata")).string();
  config.pgdata = pgdata;
  config.file = config::config_path_for(pgdata, args.maybe("config"));
  const bool is_new = !fs::exists(config.file);
  if (!is_new) {
    config = config::load(config.file, config::Role::monitor);
  } else {
    config.state_directory = absolute(args.get("state-directory", config::default_state_directory(config.file)));
  }
  const auto take = [&](const char* option, const char* key) {
    if (const auto value = args.maybe(option)) config::set(config, key, *value);
  };
  config.bindir =
      postgres::find_bindir(args.has("pgctl") ? std::optional<fs::path>(args.get("pgctl")) : std::nullopt).string();
  take("pgport", "postgresql.port");
  take("hostname", "node.hostname");
  take("listen", "postgresql.listen_addresses");
  take("auth", "postgresql.auth");
  take("max-nodes", "monitor.max_nodes");
  if (const auto uri = args.maybe("database-uri")) config.database_uri = pg::without_password(*uri);
  if (args.has("skip-pg-hba")) config.manage_hba = false;
  take_tls(config, args, is_new);
  if (const auto cluster = postgres::debian_cluster_of(config.pgdata)) {
    throw UserError(ExitCode::bad_arguments, pgdata + " is Debian's cluster " + cluster->version + "/" + cluster->name,
                    "give the monitor a directory of its own, or a database of that cluster by --database-uri");
  }
  return config;
}

int run_create(const Args& args) {
  log::setup("pgvigil-monitor", cli::log_level(args, "warn"), "text");
  config::Config config = config_from(args);
  if (embedded(config)) os::refuse_root();
  os::make_directories(config.state_directory, 0700);
  {
    asio::io_context context(1);
    run_to_end(context, create(config));
  }
  config::save(config);
  std::cout << "monitor URI for the nodes: " << node_uri(config)
            << "\npassword for it:           " << password_file(config).string() << std::endl;
  if (const std::string unit = config::unit_of(config); !unit.empty())
    std::cout << "start it, as root:         systemctl enable --now " << unit << std::endl;
  return args.has("run") ? serve(config) : 0;
}

int run(const Args& args) {
  const fs::path file =
      args.has("config") ? config::config_named(args.get("config")) : config::config_path_for(args.require("pgdata"));
  config::Config config = config::load(file, config::Role::monitor);
  config.log_level = cli::log_level(args, config.log_level);
  return serve(config);
}

asio::awaitable<void> drop(config::Config config, bool destroy) {
  if (os::PidFile::holder(fs::path(config.state_directory) / "pid")) {
    throw UserError(ExitCode::bad_arguments, "the monitor of " + config.pgdata + " still runs",
                    "pgvigil stop --pgdata " + config.pgdata);
  }
  if (embedded(config)) {
    postgres::Instance instance(instance_settings(config));
    co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{config.stop});
    if (destroy && fs::exists(config.pgdata)) {
      for (const auto& entry : fs::directory_iterator(config.pgdata)) fs::remove_all(entry.path());
    }
    if (destroy) fs::remove(instance.initdb_marker());
  }
  // With the database stay the password that the nodes know, and what is known of its past.
  if (destroy) {
    fs::remove(password_file(config));
    fs::remove(witness_file(config));
    for (const fs::path& own : cli::own_certificate(config)) fs::remove(own);
  }
  fs::remove(config.file);
}

int run_drop(const Args& args) {
  const fs::path file = config::config_path_for(args.require("pgdata"));
  const config::Config config = config::load(file, config::Role::monitor);
  os::become_owner_of(config.state_directory);
  asio::io_context context(1);
  run_to_end(context, drop(config, args.has("destroy")));
  return 0;
}

}  // namespace

cli::Program program() {
  const cli::Option pgdata{"pgdata", "DIR", "data directory of the monitor's own PostgreSQL", {"PGDATA"}};
  const cli::Option file{"config", "FILE", "its configuration, or the name of it without directory and .toml"};
  cli::Program program;
  program.name = "pgvigil-monitor";
  program.summary = "keeps the formation's state and decides";
  std::vector<cli::Option> create_options{
      pgdata,
      {"config", "FILE", "where its configuration is to be, or the name of it alone (made of --pgdata)"},
      {"pgport", "PORT", "port of its PostgreSQL (5432)", {"PGPORT"}},
      {"hostname", "HOST", "name or address by which the nodes reach it (127.0.0.1)"},
      {"listen", "ADDRESSES", "listen_addresses (*)"},
      {"auth", "METHOD", "scram-sha-256 (default) or trust, for the nodes' sessions"},
      {"pgctl", "FILE", "pg_ctl of the PostgreSQL to use"},
      {"state-directory", "DIR", "where the password file and the server's log lie"},
      {"database-uri", "URI", "use this database instead of an embedded PostgreSQL; its user owns the schema"},
      {"max-nodes", "N", "how many nodes its PostgreSQL is to have sessions for (400)"},
      {"skip-pg-hba", "", "leave pg_hba.conf to me"},
      {"run", "", "stay in the foreground and run the monitor"}};
  for (const cli::Option& option : cli::tls_options(true)) create_options.push_back(option);
  program.commands.push_back({"create", "make a monitor and its database", create_options, {}, run_create});
  program.commands.push_back({"run", "run the monitor in the foreground", {pgdata, file}, {}, run});
  program.commands.push_back({"drop",
                              "remove the monitor of this machine",
                              {pgdata, {"destroy", "", "also empty its data directory"}},
                              {},
                              run_drop});
  program.common = cli::log_options();
  return program;
}

}  // namespace pgvigil::monitor
