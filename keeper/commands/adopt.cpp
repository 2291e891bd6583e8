#include "keeper/commands/adopt.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "common/cli/tls_options.hpp"
#include "common/os/file.hpp"
#include "common/postgres/configured.hpp"
#include "common/postgres/debian_layout.hpp"
#include "keeper/actions/local_sql.hpp"

namespace pgvigil::keeper {

namespace fs = std::filesystem;

namespace {

// "postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)"; 0 when it says something else.
int major_in(const std::string& version) {
  const auto number = version.find(") ");
  return number == std::string::npos ? 0 : std::atoi(version.c_str() + number + 2);
}

asio::awaitable<std::string> setting_in(const config::Config& config, const fs::path& file, const std::string& name) {
  try {
    co_return co_await postgres::configured(config.bindir, file.parent_path(), file, name);
  } catch (const Error& error) {
    throw UserError(ExitCode::postgres, "the configuration of " + config.pgdata + " cannot be used:\n" + error.what(),
                    "correct " + file.string());
  }
}

std::string first_of_list(const std::string& list) {
  return list.substr(0, list.find(','));
}

void take_port(config::Config& config, const cli::Args& args, const std::string& port) {
  if (!args.has("pgport")) config::set(config, "postgresql.port", port);
}

// With less its logical slots would keep PostgreSQL from starting.
void take_wal_level(config::Config& config, const std::string& wal_level) {
  if (wal_level == "logical") config.wal_level = wal_level;
}

// What pgvigil would lower: the cluster's own values, in PostgreSQL's base units.
struct Generous {
  const char* name;
  const char* unit;
  std::int64_t ours;
  std::int64_t nobodys;  // PostgreSQL's default, which nobody has chosen
};
constexpr Generous generous[] = {{"max_wal_senders", "", 16, 10},
                                 {"max_replication_slots", "", 16, 10},
                                 {"wal_keep_size", "MB", 512, 0},
                                 {"wal_sender_timeout", "ms", 10000, 60000}};

void keep_if_larger(postgres::Settings& kept, const Generous& one, const std::string& value) {
  const std::int64_t number = std::atoll(value.c_str());
  if (number > one.ours && number != one.nobodys) kept[one.name] = std::to_string(number) + one.unit;
}

bool loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

// Other nodes can come in by these (PostgreSQL's default is localhost).
bool reachable(const std::string& listen_addresses, const std::string& hostname) {
  std::string address;
  for (std::istringstream words(listen_addresses); std::getline(words >> std::ws, address, ',');) {
    address.erase(address.find_last_not_of(" \t") + 1);
    if (!loopback(address) || loopback(hostname)) return true;
  }
  return false;
}

void take_listen_addresses(config::Config& config, const cli::Args& args, const std::string& list) {
  if (!args.has("listen") && reachable(list, config.hostname)) config.listen_addresses = list;
}

// A cluster that has TLS keeps its certificate and key. In a copy of a node they are that node's.
void keep_own_certificate(config::Config& config, const cli::Args& args, const std::string& ssl) {
  if (ssl != "on" || !config.ssl || cli::asks_for_tls(args)) return;
  if (postgres::read_settings(config.pgdata).contains("ssl")) return;
  config.ssl_cert_file.clear();
  config.ssl_key_file.clear();
}

// Its port and socket directory are in its pid file (miscinit.c, AddToDataDirLockFile).
asio::awaitable<postgres::Settings> adopt_running(config::Config& config, const cli::Args& args) {
  const postgres::PidFile file = postgres::read_pid_file(config.pgdata);
  if (!file.port.empty()) {
    take_port(config, args, file.port);
    if (file.port != std::to_string(config.port)) {
      throw UserError(ExitCode::bad_arguments, "PostgreSQL runs in " + config.pgdata + " on port " + file.port,
                      "give --pgport " + file.port);
    }
  }
  if (!file.socket_directory.empty()) config.socket_directory = first_of_list(file.socket_directory);
  const postgres::Instance instance(instance_settings(config));
  pg::Connection local = co_await open_local(instance, pg::Millis{5000});
  const pg::Result row = co_await local.query(
      "SELECT current_setting('config_file') AS conf, current_setting('hba_file') AS hba, current_setting('ssl') AS "
      "ssl, current_setting('wal_level') AS wal_level, current_setting('listen_addresses') AS listen");
  config.config_file = row.text(0, "conf");
  config.hba_file = row.text(0, "hba");
  take_wal_level(config, row.text(0, "wal_level"));
  keep_own_certificate(config, args, row.text(0, "ssl"));
  take_listen_addresses(config, args, row.text(0, "listen"));
  postgres::Settings kept;
  for (const Generous& one : generous) {
    std::vector<pg::Param> name;
    name.emplace_back(one.name);
    const pg::Result value = co_await local.query("SELECT setting FROM pg_settings WHERE name = $1", name);
    keep_if_larger(kept, one, value.text(0, "setting"));
  }
  co_return kept;
}

asio::awaitable<postgres::Settings> adopt_stopped(config::Config& config, const cli::Args& args) {
  postgres::Settings kept;
  fs::path file = fs::path(config.pgdata) / "postgresql.conf";
  if (args.has("config-file")) {
    file = fs::absolute(args.get("config-file")).lexically_normal();
  } else if (!fs::exists(file)) {
    const auto cluster = postgres::debian_cluster_of(config.pgdata);
    file = cluster ? cluster->configuration / "postgresql.conf" : fs::path();
  }
  if (file.empty()) co_return kept;
  config.config_file = file.string();
  config.hba_file = co_await setting_in(config, file, "hba_file");
  const std::string port = co_await setting_in(config, file, "port");
  take_port(config, args, port);
  const std::string sockets = co_await setting_in(config, file, "unix_socket_directories");
  const std::string directory = first_of_list(sockets);
  if (directory.starts_with('/') && ::access(directory.c_str(), W_OK) == 0) config.socket_directory = directory;
  const std::string wal_level = co_await setting_in(config, file, "wal_level");
  take_wal_level(config, wal_level);
  const std::string ssl = co_await setting_in(config, file, "ssl");
  keep_own_certificate(config, args, ssl);
  const std::string listen = co_await setting_in(config, file, "listen_addresses");
  take_listen_addresses(config, args, listen);
  for (const Generous& one : generous) {
    const std::string name = one.name;
    const std::string value = co_await setting_in(config, file, name);
    keep_if_larger(kept, one, value);
  }
  co_return kept;
}

}  // namespace

asio::awaitable<void> fit_programs(config::Config& config, const cli::Args& args) {
  const postgres::Instance instance(instance_settings(config));
  if (!instance.has_cluster()) co_return;
  const std::vector<std::string> argv{(instance.settings().bindir / "postgres").string(), "--version"};
  const os::ProcessResult result = co_await os::run(argv);
  const int found = major_in(result.output);
  const int wanted = instance.major_version();
  if (found == wanted || found == 0) co_return;
  const fs::path installed = fs::path("/usr/lib/postgresql") / std::to_string(wanted) / "bin";
  if (args.has("pgctl") || !fs::exists(installed / "postgres")) {
    const std::string version = std::to_string(wanted);
    throw UserError(ExitCode::bad_arguments,
                    config.pgdata + " is a cluster of PostgreSQL " + version + ", but the programs in " +
                        config.bindir + " are of " + std::to_string(found),
                    "install the server of PostgreSQL " + version + ", or name its pg_ctl with --pgctl");
  }
  config.bindir = postgres::find_bindir(installed).string();
}

asio::awaitable<postgres::Settings> adopt_cluster(config::Config& config, const cli::Args& args) {
  const postgres::Instance instance(instance_settings(config));
  postgres::Settings kept;
  if (instance.postmaster()) {
    kept = co_await adopt_running(config, args);
  } else {
    kept = co_await adopt_stopped(config, args);
  }
  // Only what lies elsewhere is written down.
  std::error_code error;
  const fs::path pgdata = config.pgdata;
  if (fs::equivalent(config.config_file, pgdata / "postgresql.conf", error)) config.config_file.clear();
  if (fs::equivalent(config.hba_file, pgdata / "pg_hba.conf", error)) config.hba_file.clear();
  co_return kept;
}

void write_kept(const config::Config& config, const postgres::Settings& kept) {
  const fs::path file = fs::path(config.pgdata) / "postgresql-pgvigil.conf";
  if (!kept.empty() && !fs::exists(file)) os::write_file_atomic(file, postgres::settings_text(kept), 0600);
}

// What a take-over without a restart needs; only a restart could change it.
asio::awaitable<void> check_running(const postgres::Instance& instance, std::string hostname) {
  pg::Connection local = co_await open_local(instance, pg::Millis{5000});
  const pg::Result row = co_await local.query(
      "SELECT pg_is_in_recovery() AS standby, current_setting('wal_level') AS wal_level, "
      "current_setting('listen_addresses') AS listen, "
      "current_setting('max_wal_senders')::int AS senders, "
      "current_setting('max_replication_slots')::int AS slots, "
      "current_setting('wal_log_hints')::bool OR current_setting('data_checksums')::bool AS rewindable");
  if (row.boolean(0, "standby")) {
    throw UserError(ExitCode::bad_arguments, "the PostgreSQL that runs there is a standby",
                    "take over its primary; then stop it and run this again, and it joins as it is");
  }
  std::string missing;
  if (row.text(0, "wal_level") != "replica" && row.text(0, "wal_level") != "logical")
    missing += " wal_level = replica;";
  if (row.integer(0, "senders") < 4) missing += " max_wal_senders = 16;";
  if (row.integer(0, "slots") < 4) missing += " max_replication_slots = 16;";
  if (!row.boolean(0, "rewindable")) missing += " wal_log_hints = on;";
  if (!reachable(row.text(0, "listen"), hostname)) missing += " listen_addresses = *;";
  if (!missing.empty()) {
    throw UserError(ExitCode::bad_arguments,
                    "the PostgreSQL that runs there cannot be taken over without a restart; it needs" + missing,
                    "stop it and run this again: pgvigil sets them and starts it");
  }
}

}  // namespace pgvigil::keeper
