#include "keeper/actions/node.hpp"

#include <array>
#include <charconv>
#include <set>
#include <sstream>
#include <string_view>

#include "common/config/values.hpp"
#include "common/log/log.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::keeper {

postgres::InstanceSettings instance_settings(const config::Config& config) {
  postgres::InstanceSettings settings;
  settings.pgdata = config.pgdata;
  settings.bindir = config.bindir;
  settings.log = std::filesystem::path(config.state_directory) / "postgresql.log";
  settings.socket_directory = config.socket_directory.empty() ? config.state_directory : config.socket_directory;
  settings.listen_addresses = config.listen_addresses;
  settings.port = config.port;
  settings.superuser = config.superuser;
  settings.config_file = config.config_file;
  settings.hba_file = config.hba_file;
  return settings;
}

std::string peer_conninfo(const Node& node, const Peer& peer, const char* user, const std::string& dbname,
                          const std::string& application) {
  pg::ConninfoMap values{{"host", peer.host},
                         {"port", std::to_string(peer.port)},
                         {"user", user},
                         {"passfile", node.passfile().string()},
                         {"application_name", application},
                         {"connect_timeout", "2"},
                         {"keepalives_idle", "5"},
                         {"keepalives_interval", "2"},
                         {"keepalives_count", "3"}};
  if (!dbname.empty()) values["dbname"] = dbname;
  if (peer.sslmode != unencrypted)
    pg::set_sslmode(values, peer.sslmode, node.config.ssl_ca_file);  // else libpq's default
  values.merge(config::shown_certificate(node.config));
  return pg::to_conninfo(values);
}

namespace {

// What a recovery to a point in time has left in postgresql.conf is copied to standbys, and counts there: they would
// stop replaying while they go on receiving and confirming. (Without a target recovery_target_action means nothing.)
constexpr std::array recovery_targets{"recovery_target", "recovery_target_lsn", "recovery_target_name",
                                      "recovery_target_time", "recovery_target_xid"};

// The same on both sides of a pair, so that a change of role is a reload and a promotion, never a restart.
postgres::Settings common_settings(const Node& node) {
  const auto instance = instance_settings(node.config);
  postgres::Settings settings{
      {"listen_addresses", node.config.listen_addresses},
      {"port", std::to_string(node.config.port)},
      {"unix_socket_directories", instance.socket_directory.string()},
      {"wal_level", node.config.wal_level},
      {"max_wal_senders", "16"},
      {"max_replication_slots", "16"},
      {"wal_log_hints", "on"},
      {"hot_standby", "on"},
      {"password_encryption", "scram-sha-256"},
      // A standby that returns after a failover finds the WAL since the fork without a slot.
      {"wal_keep_size", "512MB"},
      // At its default of 5 s a standby that misses its upstream once sleeps through a failover.
      {"wal_retrieve_retry_interval", "100ms"},
      {"wal_receiver_status_interval", "1s"},
      {"wal_receiver_timeout", "10s"},
      {"wal_sender_timeout", "10s"},
      {"recovery_target_timeline", "latest"},
      {"primary_slot_name", standby_name(node.id)},
  };
  for (const char* target : recovery_targets) settings[target] = "";
  return settings;
}

// Where its probes come from. A socket directory says nothing of that.
std::vector<std::string> monitor_hosts(const std::string& uri) {
  const auto values = pg::parse_conninfo(uri);
  const auto list = values.find("host");
  std::vector<std::string> hosts;
  std::istringstream words(list == values.end() ? "" : list->second);
  for (std::string host; std::getline(words, host, ',');) {
    if (!host.empty() && host.front() != '/' && host.front() != '@') hosts.push_back(host);
  }
  return hosts;
}

}  // namespace

postgres::Settings tls_settings(const config::Config& config) {
  if (config.ssl_cert_file.empty()) return {};
  return {{"ssl", "on"},
          {"ssl_cert_file", config.ssl_cert_file},
          {"ssl_key_file", config.ssl_key_file},
          {"ssl_ca_file", config.ssl_ca_file}};
}

postgres::Settings primary_settings(const Node& node, const SyncNames& names) {
  auto settings = common_settings(node);
  settings["synchronous_standby_names"] = to_guc(names);
  settings["primary_conninfo"] = "";
  return settings;
}

postgres::Settings standby_settings(const Node& node, const Peer* upstream, const SyncNames& names) {
  auto settings = common_settings(node);
  settings["synchronous_standby_names"] = to_guc(names);
  // The database is for who synchronizes slots (PostgreSQL 17); a walreceiver needs none.
  settings["primary_conninfo"] =
      upstream == nullptr ? "" : peer_conninfo(node, *upstream, replication_role, "postgres", standby_name(node.id));
  return settings;
}

namespace {

// What it points to may be on a disk that is not mounted yet: a file in its place would hide the right one for good.
void refuse_dangling(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::is_symlink(file, error)) return;
  if (std::filesystem::status(file, error).type() != std::filesystem::file_type::not_found) return;
  const auto target = std::filesystem::read_symlink(file, error);
  throw UserError(ExitCode::bad_state, file.string() + " is a link to " + target.string() + ", and that is not there",
                  "put it back, or remove the link: a plain file is made then");
}

// A copy lacks postgresql.conf and pg_hba.conf when its source has them outside PGDATA: then it starts with plain ones.
void make_missing_files(const Node& node, const postgres::Instance& instance) {
  const auto make = [](const std::filesystem::path& file, const std::string& content) {
    std::error_code error;
    if (std::filesystem::symlink_status(file, error).type() != std::filesystem::file_type::not_found) {
      refuse_dangling(file);
      return;
    }
    log::warn("there is no {}: a plain one is made", file.string());
    os::write_file_atomic(file, content, 0600);
  };
  make(instance.config_file(), "# Made by pgvigil's keeper. Your settings belong here.\n");
  if (!node.config.manage_hba) return;
  const char* method = node.config.superuser.empty() ? "peer" : "trust";  // as initdb is told (instance.cpp)
  make(instance.hba_file(),
       std::string("# Made by pgvigil's keeper. Your lines belong here.\nlocal all all ") + method + "\n");
}

// In PostgreSQL's base unit.
std::int64_t quantity(const std::string& text) {
  std::int64_t number = 0;
  const char* end = text.data() + text.size();
  const char* unit = std::from_chars(text.data(), end, number).ptr;
  return number * (std::string_view(unit, static_cast<std::size_t>(end - unit)) == "s" ? 1000 : 1);
}

// Of these the file holds more when the cluster that was taken over had more (adopt.cpp), and brings that to its
// copies: with fewer walsenders than its primary a standby does not start, with fewer slots than there are nobody does.
void keep_larger(postgres::Settings& settings, const postgres::Settings& present) {
  for (const char* name : {"max_wal_senders", "max_replication_slots", "wal_keep_size", "wal_sender_timeout"}) {
    const auto held = present.find(name);
    std::string& ours = settings.at(name);
    if (held != present.end() && quantity(held->second) > quantity(ours)) ours = held->second;
  }
}

// Writes them, and takes out of postgresql.auto.conf what would make replication go by other ones. True when a reload
// is due.
bool write_own_settings(const postgres::Instance& instance, const postgres::Settings& wanted) {
  static const std::vector<std::string> ours_alone{"port",
                                                   "unix_socket_directories",
                                                   "wal_level",
                                                   "wal_log_hints",
                                                   "hot_standby",
                                                   "primary_conninfo",
                                                   "primary_slot_name",
                                                   "recovery_target_timeline",
                                                   "synchronous_standby_names"};
  const auto& pgdata = instance.settings().pgdata;
  postgres::Settings settings = wanted;
  keep_larger(settings, postgres::read_settings(pgdata));
  const bool changed = postgres::write_settings(pgdata, instance.config_file(), settings);
  auto ours = ours_alone;
  ours.insert(ours.end(), recovery_targets.begin(), recovery_targets.end());
  if (settings.contains("ssl")) ours.insert(ours.end(), {"ssl", "ssl_cert_file", "ssl_key_file"});
  const auto dropped = postgres::drop_overrides(pgdata, ours);
  for (const std::string& name : dropped) log::warn("{} is taken out of postgresql.auto.conf: pgvigil sets it", name);
  return changed || !dropped.empty();
}

// One entry for each role and peer, and the monitor's probe. These roles come in from nowhere else, unless the user's
// own lines in `hba_file` name them. `encrypted`: only by TLS.
std::vector<postgres::HbaEntry> hba_entries(const Node& node, const std::vector<Peer>& peers,
                                            const std::filesystem::path& hba_file, bool encrypted) {
  std::vector<postgres::HbaEntry> entries;
  std::set<std::string> hosts;
  // With a line that it cannot read, PostgreSQL would not start. The monitor has taken such names before.
  const auto usable = [](const std::string& host) {
    const bool good = config::is_host(host);
    if (!good) log::warn("pg_hba.conf gets no line for \"{}\", which is no host name", host);
    return good;
  };
  for (const Peer& peer : peers) {
    if (usable(peer.host)) hosts.insert(peer.host);
  }
  const std::string& method = node.config.auth;
  const std::string type = encrypted ? "hostssl" : "host";
  // Not of probes: they may do nothing, and a monitor in somebody's own database has no certificate to show.
  const std::string certificate = encrypted ? config::asked_certificate(node.config) : "";
  for (const std::string& host : hosts) {
    entries.push_back({type, "replication", replication_role, host, method + certificate});
    entries.push_back({type, "postgres", replication_role, host, method + certificate});  // pg_rewind
    entries.push_back({type, "postgres", probe_role, host, method});
  }
  for (const std::string& host : monitor_hosts(node.config.monitor_uri)) {
    if (usable(host) && hosts.insert(host).second) entries.push_back({type, "postgres", probe_role, host, method});
  }
  // A line for everybody is not meant for them, unless somebody names them: the one may read every file of the cluster,
  // the other has nothing to look for in another database.
  if (!postgres::hba_names(hba_file, probe_role)) entries.push_back({"host", "all", probe_role, "all", "reject"});
  if (postgres::hba_names(hba_file, replication_role)) return entries;
  entries.push_back({"host", "replication", replication_role, "all", "reject"});
  entries.push_back({"host", "all", replication_role, "all", "reject"});
  return entries;
}

}  // namespace

bool write_role_files(const Node& node, const postgres::Instance& instance, const RoleFiles& files) {
  if (files.standby) postgres::set_standby_signal(instance.settings().pgdata, true);
  make_missing_files(node, instance);
  const bool changed = write_own_settings(instance, files.settings);
  if (!node.config.manage_hba) return changed;
  const auto entries = hba_entries(node, files.peers, instance.hba_file(), files.encrypted);
  return postgres::write_hba(instance.hba_file(), entries) || changed;
}

namespace {

std::string line_of(const char* role) {
  return std::string("*:*:*:") + role + ":";
}

}  // namespace

void write_passfile(const Node& node, const Passwords& passwords) {
  // "*" for host, port and database: the peers' addresses change. The passwords are generated hexadecimal digits:
  // nothing to escape.
  const std::string text =
      line_of(replication_role) + passwords.replication + "\n" + line_of(probe_role) + passwords.probe + "\n";
  os::write_file_atomic(node.passfile(), text, 0600);
}

Passwords read_passfile(const Node& node) {
  Passwords passwords;
  std::istringstream lines(os::read_file(node.passfile()).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    for (auto [role, password] :
         {std::pair{replication_role, &passwords.replication}, {probe_role, &passwords.probe}}) {
      if (line.starts_with(line_of(role))) *password = line.substr(line_of(role).size());
    }
  }
  if (passwords.replication.empty() || passwords.probe.empty()) {
    throw UserError(ExitCode::bad_state, node.passfile().string() + " does not hold the passwords of pgvigil's roles",
                    "restore it from a backup, or create the node again");
  }
  return passwords;
}

}  // namespace pgvigil::keeper
