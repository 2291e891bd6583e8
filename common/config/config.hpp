// The one TOML file of a node. Made by `create`, read by everything else, readable by a person.
// It lies in <config dir>/<name>.toml, where <config dir> is $PGVIGIL_CONFIG_DIR, else /etc/pgvigil for root-made
// systems that have it writable, else ${XDG_CONFIG_HOME:-~/.config}/pgvigil; <name> is derived from --pgdata's absolute
// path ("srv-pg-a" + 8 hex digits of a hash), so that --pgdata alone finds it. State (state file, pid file, passwords)
// lies in the directory `state_directory` named inside it, by default ${XDG_STATE_HOME:-~/.local/state}/pgvigil/<name>.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil::config {

namespace fs = std::filesystem;

enum class Role { monitor, keeper };

struct Config {
  Role role{Role::keeper};
  fs::path file;  // where it was read from / is written to; not a key
  // [node]
  std::string name;  // "" lets the monitor choose
  std::string hostname{"127.0.0.1"};
  std::string formation{"default"};
  int group{0};
  std::string state_directory;
  // [monitor]
  std::string monitor_uri;            // keeper: of the monitor's database, without a password
  std::string monitor_password_file;  // keeper
  std::string database_uri;           // monitor: an existing PostgreSQL to use instead of an embedded one
  int max_nodes{400};                 // monitor: sessions that its embedded PostgreSQL has room for; at its next start
  // [postgresql]
  std::string pgdata;
  std::string bindir;
  int port{5432};
  std::string listen_addresses{"*"};
  std::string superuser;  // "" = the OS user
  std::string dbname{"postgres"};
  std::string auth{"scram-sha-256"};  // trust | scram-sha-256
  bool manage_hba{true};
  std::string socket_directory;  // "" = state_directory
  // [replication]
  std::string maximum_backup_rate{"100M"};
  int candidate_priority{50};
  bool replication_quorum{true};
  // [timeouts], seconds
  int start{60};
  int stop{60};
  int heartbeat_ms{1000};
  // [log]
  std::string log_level{"info"};
  std::string log_format{"text"};  // text | json

  friend bool operator==(const Config&, const Config&) = default;
};

// The path rules of the header comment.
fs::path config_path_for(const fs::path& pgdata);
std::string default_state_directory(const fs::path& pgdata);

// Throws UserError(bad_config): "FILE:LINE:COLUMN: ..." for syntax errors, unknown sections and keys, wrong types,
// values out of range.
Config parse(const std::string& text, const fs::path& file);
Config load(const fs::path& file);
std::string to_toml(const Config& config);  // with a comment line for each section
void save(const Config& config);            // atomic, 0600

// `section.key` access for `config get|set`; throws UserError(bad_arguments) for an unknown key, bad_config for a bad
// value. set() validates the whole.
std::vector<std::string> keys();
std::string get(const Config& config, const std::string& key);
void set(Config& config, const std::string& key, const std::string& value);

}  // namespace pgvigil::config
