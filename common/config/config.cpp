#include "common/config/config.hpp"

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>

#include "common/config/values.hpp"
#include "common/os/file.hpp"

namespace pgvigil::config {

namespace {

[[noreturn]] void bad(const std::string& why, const std::string& hint = {}) {
  throw UserError(ExitCode::bad_config, why, hint);
}

// One key: how it is called, shown, read, checked and explained. The table below is the whole format.
struct Key {
  std::string section;
  std::string name;
  std::string meaning;
  std::string range;  // what it may be, for people
  std::function<std::string(const Config&)> get;
  std::function<void(Config&, const std::string&)> set;  // throws UserError(bad_config) without the key's name
  Type type;
  std::function<void(const std::string&)>
      check_new{};  // only of what is set now: a file from before must stay readable
  std::string full() const { return section + "." + name; }
};

// Settings of older versions that count no more; a file that still has one is read all the same.
constexpr std::array former_keys{"timeouts.heartbeat_ms"};  // the formation's to say: set formation timings

void no_control_characters(const std::string& value) {
  if (std::any_of(value.begin(), value.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 127; })) {
    bad("must not contain control characters");
  }
}

// What a text may be.
struct Texts {
  std::string range;  // for people
  std::function<void(const std::string&)> check;
  std::function<void(const std::string&)> check_new{};
};

Key text(std::string section, std::string name, std::string Config::*field, std::string meaning, Texts may_be = {}) {
  return {std::move(section),
          std::move(name),
          std::move(meaning),
          may_be.range,
          [field](const Config& config) { return config.*field; },
          [field, check = may_be.check](Config& config, const std::string& value) {
            no_control_characters(value);
            if (check) check(value);
            config.*field = value;
          },
          Type::text,
          may_be.check_new};
}

Key integer(std::string section, std::string name, int Config::*field, int low, int high, std::string meaning) {
  return {std::move(section),
          std::move(name),
          std::move(meaning),
          std::to_string(low) + " to " + std::to_string(high),
          [field](const Config& config) { return std::to_string(config.*field); },
          [field, low, high](Config& config, const std::string& value) {
            int number = 0;
            std::size_t used = 0;
            try {
              number = std::stoi(value, &used);
            } catch (const std::exception&) {
              used = 0;
            }
            if (used == 0 || used != value.size()) bad("must be an integer, not \"" + value + "\"");
            if (number < low || number > high) {
              bad("must be between " + std::to_string(low) + " and " + std::to_string(high) + ", not " + value);
            }
            config.*field = number;
          },
          Type::integer};
}

Key boolean(std::string section, std::string name, bool Config::*field, std::string meaning) {
  return {std::move(section),
          std::move(name),
          std::move(meaning),
          "true, false",
          [field](const Config& config) { return std::string(config.*field ? "true" : "false"); },
          [field](Config& config, const std::string& value) {
            if (value != "true" && value != "false") bad("must be true or false, not \"" + value + "\"");
            config.*field = value == "true";
          },
          Type::boolean};
}

Texts one_of(std::vector<std::string> words) {
  std::string list;
  for (const std::string& word : words) list += (list.empty() ? "" : ", ") + word;
  return {list, [words, list](const std::string& value) {
            if (std::find(words.begin(), words.end(), value) == words.end())
              bad("must be one of " + list + ", not \"" + value + "\"");
          }};
}

void host_name(const std::string& value) {
  const bool wrong = value.empty() || std::any_of(value.begin(), value.end(), [](char c) {
                       return static_cast<unsigned char>(c) <= ' ' || c == '\'' || c == '"' || c == ',' || c == '/' ||
                              c == '\\' || c == '#';
                     });
  if (wrong) bad("must be a host name or address, not \"" + value + "\"");
}

void new_host_name(const std::string& value) {
  if (!is_host(value))
    bad("must be a host name, or an address in full, and no keyword of pg_hba.conf, not \"" + value + "\"");
}

void new_backup_rate(const std::string& value) {
  if (!is_backup_rate(value)) bad("must be a rate that pg_basebackup takes, from 32k to 1024M, not \"" + value + "\"");
}

const Texts not_empty{{}, [](const std::string& value) {
                        if (value.empty()) bad("must not be empty");
                      }};

Key role_key() {
  const Texts roles = one_of({"monitor", "keeper"});
  return {"node",
          "role",
          "what the node is; fixed when it is made",
          roles.range,
          [](const Config& config) { return std::string(config.role == Role::monitor ? "monitor" : "keeper"); },
          [check = roles.check](Config& config, const std::string& value) {
            check(value);
            config.role = value == "monitor" ? Role::monitor : Role::keeper;
          },
          Type::text};
}

std::vector<Key> who_and_where() {
  return {
      role_key(),
      text("node", "name", &Config::name, "its name in the formation; empty: the monitor chooses"),
      text("node", "hostname", &Config::hostname, "where the others reach it", {"", host_name, new_host_name}),
      text("node", "formation", &Config::formation, "keeper: the formation", not_empty),
      integer("node", "group", &Config::group, 0, 1'000'000, "keeper: the group of the formation"),
      text("node", "state_directory", &Config::state_directory, "state, passwords, PostgreSQL's log", not_empty),
      text("monitor", "uri", &Config::monitor_uri, "keeper: of the monitor's database, without a password"),
      text("monitor", "password_file", &Config::monitor_password_file, "keeper: file with its password, mode 0600"),
      text("monitor", "database_uri", &Config::database_uri, "monitor: a database that it uses instead of its own"),
      integer("monitor", "max_nodes", &Config::max_nodes, 10, 20000,
              "monitor: sessions that its PostgreSQL has room for"),
  };
}

std::vector<Key> local_postgresql() {
  return {
      text("postgresql", "pgdata", &Config::pgdata, "its data directory; fixed when the node is made", not_empty),
      text("postgresql", "bindir", &Config::bindir, "where its programs are"),
      text("postgresql", "config_file", &Config::config_file, "postgresql.conf where it lies outside PGDATA"),
      text("postgresql", "hba_file", &Config::hba_file, "pg_hba.conf where it lies outside PGDATA"),
      integer("postgresql", "port", &Config::port, 1, 65535, "its port"),
      text("postgresql", "listen_addresses", &Config::listen_addresses, "as in postgresql.conf"),
      text("postgresql", "superuser", &Config::superuser, "the role that pgvigil uses; empty: the system user's name"),
      text("postgresql", "dbname", &Config::dbname, "the applications' database", not_empty),
      text("postgresql", "auth", &Config::auth, "how the nodes prove to each other who they are",
           one_of({"trust", "scram-sha-256"})),
      text("postgresql", "wal_level", &Config::wal_level, "counts from PostgreSQL's next start on",
           one_of({"replica", "logical"})),
      boolean("postgresql", "manage_hba", &Config::manage_hba, "write the lines of the nodes into pg_hba.conf"),
      text("postgresql", "socket_directory", &Config::socket_directory, "empty: the state directory"),
      boolean("ssl", "active", &Config::ssl, "TLS; pgvigil enable ssl sets this and the next five"),
      text("ssl", "sslmode", &Config::ssl_mode, "by which the others reach it",
           one_of({"prefer", "require", "verify-ca", "verify-full"})),
      text("ssl", "ca_file", &Config::ssl_ca_file, "by which certificates are known"),
      text("ssl", "cert_file", &Config::ssl_cert_file, "its certificate; keeper: empty: what postgresql.conf says"),
      text("ssl", "key_file", &Config::ssl_key_file, "the key of that certificate"),
      text("ssl", "client_certificates", &Config::ssl_client_certificates,
           "shown: it shows its certificate to the monitor and to other nodes; required: and asks them for theirs",
           one_of({"none", "shown", "required"})),
  };
}

std::vector<Key> behaviour() {
  return {
      text("replication", "maximum_backup_rate", &Config::maximum_backup_rate,
           "of a base backup, a second, as pg_basebackup --max-rate takes it",
           {"32k to 1024M", not_empty.check, new_backup_rate}),
      integer("replication", "candidate_priority", &Config::candidate_priority, 0, 100,
              "when it registers; later: pgvigil set node candidate-priority"),
      boolean("replication", "replication_quorum", &Config::replication_quorum,
              "when it registers; later: pgvigil set node replication-quorum"),
      integer("timeouts", "start", &Config::start, 1, 86400, "seconds that a start of PostgreSQL may take"),
      integer("timeouts", "stop", &Config::stop, 1, 86400, "seconds that a stop of PostgreSQL may take"),
      integer("timeouts", "switchover_on_stop", &Config::switchover_on_stop, 0, 3600,
              "seconds that a stop of the primary may wait for another node to take over; 0: not at all"),
      text("log", "level", &Config::log_level, "how much is logged",
           one_of({"trace", "debug", "info", "warn", "error"})),
      text("log", "format", &Config::log_format, "of the log's lines", one_of({"text", "json"})),
  };
}

const std::vector<Key>& table() {
  static const std::vector<Key> keys_of_file = [] {
    std::vector<Key> all;
    for (const auto& part : {who_and_where(), local_postgresql(), behaviour()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return keys_of_file;
}

// A TOML basic string. Control characters never get here: no setting takes them.
std::string quoted(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

std::string where(const fs::path& file, const toml::source_region& region) {
  return file.string() + ":" + std::to_string(region.begin.line) + ":" + std::to_string(region.begin.column) + ": ";
}

std::string as_text(const Key& key, const toml::node& node, const std::string& place) {
  switch (key.type) {
    case Type::text:
      if (const auto* value = node.as_string()) return value->get();
      bad(place + key.full() + " must be a string");
    case Type::integer:
      if (const auto* value = node.as_integer()) return std::to_string(value->get());
      bad(place + key.full() + " must be an integer");
    case Type::boolean:
      if (const auto* value = node.as_boolean()) return value->get() ? "true" : "false";
      bad(place + key.full() + " must be true or false");
  }
  bad(place + key.full() + " has an unknown type");
}

const Key* find_key(const std::string& section, const std::string& name) {
  const auto found = std::find_if(table().begin(), table().end(),
                                  [&](const Key& key) { return key.section == section && key.name == name; });
  return found == table().end() ? nullptr : &*found;
}

const Key& key_named(const std::string& full) {
  const auto dot = full.find('.');
  const Key* key = dot == std::string::npos ? nullptr : find_key(full.substr(0, dot), full.substr(dot + 1));
  if (key == nullptr)
    throw UserError(ExitCode::bad_arguments, "there is no setting " + full, "`pgvigil config get` lists all of them");
  return *key;
}

}  // namespace

Config parse(const std::string& content, const fs::path& file) {
  toml::table document;
  try {
    document = toml::parse(content, file.string());
  } catch (const toml::parse_error& error) {
    bad(where(file, error.source()) + std::string(error.description()));
  }
  Config config;
  config.file = file;
  for (const auto& [section, node] : document) {
    const auto* entries = node.as_table();
    const std::string_view section_name = section.str();
    const bool known =
        std::any_of(table().begin(), table().end(), [&](const Key& key) { return key.section == section_name; });
    if (!known || entries == nullptr)
      bad(where(file, section.source()) + "unknown section [" + std::string(section.str()) + "]");
    for (const auto& [name, value] : *entries) {
      const std::string place = where(file, name.source());
      const std::string full = std::string(section.str()) + "." + std::string(name.str());
      if (std::find(former_keys.begin(), former_keys.end(), full) != former_keys.end()) {
        config.without_effect.push_back(place + full);
        continue;
      }
      const Key* key = find_key(std::string(section.str()), std::string(name.str()));
      if (key == nullptr) bad(place + "unknown setting " + full);
      const std::string plain = as_text(*key, value, where(file, value.source()));
      try {
        key->set(config, plain);
      } catch (const UserError& error) {
        bad(where(file, value.source()) + key->full() + " " + error.what());
      }
    }
  }
  if (config.pgdata.empty() && config.database_uri.empty()) bad(file.string() + ":1:1: postgresql.pgdata is missing");
  if (config.state_directory.empty()) bad(file.string() + ":1:1: node.state_directory is missing");
  if (config.role == Role::keeper && config.monitor_uri.empty()) bad(file.string() + ":1:1: monitor.uri is missing");
  const bool without_certificate = config.ssl_cert_file.empty() && config.ssl_key_file.empty();
  const bool with_certificate = !config.ssl_cert_file.empty() && !config.ssl_key_file.empty();
  if (config.ssl && !with_certificate && !(without_certificate && config.role == Role::keeper))
    bad(file.string() + ":1:1: ssl.active needs ssl.cert_file and ssl.key_file");
  if (config.ssl && config.ssl_mode.starts_with("verify-") && config.ssl_ca_file.empty())
    bad(file.string() + ":1:1: the ssl.sslmode " + config.ssl_mode + " needs ssl.ca_file");
  if (config.ssl && config.ssl_client_certificates != "none" && (without_certificate || config.ssl_ca_file.empty()))
    bad(file.string() + ":1:1: ssl.client_certificates needs ssl.cert_file, ssl.key_file and ssl.ca_file");
  return config;
}

std::map<std::string, std::string> shown_certificate(const Config& config) {
  if (!config.ssl || config.ssl_client_certificates == "none") return {};
  return {{"sslcert", config.ssl_cert_file}, {"sslkey", config.ssl_key_file}};
}

std::string asked_certificate(const Config& config) {
  return config.ssl && config.ssl_client_certificates == "required" ? " clientcert=verify-ca" : "";
}

Config load(const fs::path& file) {
  const auto content = os::read_file(file);
  if (!content) {
    bad("there is no configuration " + file.string(),
        "make the node with `pgvigil create`, or name the right --pgdata (and the PGVIGIL_CONFIG_DIR it was made "
        "with)");
  }
  return parse(*content, file);
}

Config load(const fs::path& file, Role role) {
  Config config = load(file);
  if (config.role == role) return config;
  const bool node = config.role == Role::keeper;
  throw UserError(
      ExitCode::bad_arguments,
      file.string() + " is the configuration of " + (node ? "a data node" : "a monitor") + " (" + config.pgdata +
          "), not of " + (node ? "a monitor" : "a data node") + "; nothing was done",
      std::string("name another --pgdata or --config; this one is run by `pgvigil run` and removed by `pgvigil drop ") +
          (node ? "node`" : "monitor`"));
}

std::string to_toml(const Config& config) {
  static const std::vector<std::pair<std::string, std::string>> sections{
      {"node", "What this node is called, where the others reach it, and where its state is kept."},
      {"monitor", "The monitor's database; passwords are in files of mode 0600, never here."},
      {"postgresql", "The local PostgreSQL."},
      {"ssl", "TLS of its PostgreSQL; a data node without cert_file uses what postgresql.conf says. See enable ssl."},
      {"replication", "How this node takes part in the formation when it registers; later: pgvigil set node."},
      {"timeouts",
       "Seconds. switchover_on_stop: how long a stop of the primary may wait for another node to take over; 0: not at "
       "all."},
      {"log", "level: trace, debug, info, warn, error. format: text, json."},
  };
  std::string content = "# Written by pgvigil create; read again on reload (SIGHUP).\n";
  for (const auto& [section, comment] : sections) {
    content += "\n# " + comment + "\n[" + section + "]\n";
    for (const Key& key : table()) {
      if (key.section != section) continue;
      const std::string value = key.get(config);
      content += key.name + " = " + (key.type == Type::text ? quoted(value) : value) + "\n";
    }
  }
  return content;
}

void save(const Config& config) {
  os::make_directories(config.file.parent_path());
  os::write_file_atomic(config.file, to_toml(config), 0600);
}

std::vector<std::string> keys() {
  std::vector<std::string> names;
  for (const Key& key : table()) names.push_back(key.full());
  return names;
}

Type type_of(const std::string& key) {
  return key_named(key).type;
}

std::vector<std::pair<std::string, std::string>> explained() {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Key& key : table()) {
    const std::string fallback = key.get(Config{});
    std::string words = key.range;
    if (!fallback.empty()) words += (words.empty() ? "" : "; ") + fallback + " when it is not set";
    lines.emplace_back(key.full(), key.meaning + (words.empty() ? "" : " (" + words + ")"));
  }
  return lines;
}

std::string get(const Config& config, const std::string& key) {
  return key_named(key).get(config);
}

void set(Config& config, const std::string& key, const std::string& value) {
  const Key& entry = key_named(key);
  try {
    if (entry.check_new) entry.check_new(value);
    entry.set(config, value);
  } catch (const UserError& error) {
    bad(key + " " + error.what());
  }
  parse(to_toml(config), config.file);  // the whole must stay readable
}

std::vector<std::string> keep_fixed(const Config& running, Config& fresh) {
  std::vector<std::string> differing;
  for (const Key& key : table()) {
    const std::string name = key.full();
    const bool fixed = key.section == "node" || name == "postgresql.pgdata" || name == "postgresql.port" ||
                       name == "postgresql.socket_directory" || name == "postgresql.config_file" ||
                       name == "postgresql.listen_addresses" || name == "monitor.database_uri";
    const std::string value = key.get(running);
    if (!fixed || key.get(fresh) == value) continue;
    key.set(fresh, value);
    differing.push_back(name);
  }
  return differing;
}

}  // namespace pgvigil::config
