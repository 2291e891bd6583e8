// The one TOML file of a node. Made by `create`, read by everything else, readable by a person.
// It lies in $PGVIGIL_CONFIG_DIR, else in /etc/pgvigil (the package makes it) or ${XDG_CONFIG_HOME:-~/.config}/pgvigil.
// --pgdata finds it: by its name, which `create` derives from the absolute path ("srv-pg-a" + 8 hex digits of a hash)
// unless --config gives another, or by postgresql.pgdata inside it. State (state file, pid file, passwords) lies in the
// directory `state_directory` named inside it, by default /var/lib/pgvigil/<name> for a file in /etc/pgvigil, else
// ${XDG_STATE_HOME:-~/.local/state}/pgvigil/<name>.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil::config {

namespace fs = std::filesystem;

enum class Role { monitor, keeper };
enum class Type { text, integer, boolean };

struct Config {
  Role role{Role::keeper};
  fs::path file;                            // where it was read from / is written to; not a key
  std::vector<std::string> without_effect;  // "FILE:LINE:COLUMN: KEY": settings of older versions; not a key
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
  std::string config_file;  // where these two lie outside PGDATA; "" = inside
  std::string hba_file;
  int port{5432};
  std::string listen_addresses{"*"};
  std::string superuser;  // "" = the OS user
  std::string dbname{"postgres"};
  std::string auth{"scram-sha-256"};  // trust | scram-sha-256
  std::string wal_level{"replica"};   // replica | logical; at PostgreSQL's next start
  bool manage_hba{true};
  std::string socket_directory;  // "" = state_directory
  // [ssl]: TLS of a data node's or a monitor's own PostgreSQL
  bool ssl{false};
  std::string ssl_mode{"require"};  // the sslmode by which others reach it
  std::string ssl_ca_file;          // by which it knows the others' certificates, and they its own
  std::string ssl_cert_file;        // keeper: "" = the cluster has its own settings
  std::string ssl_key_file;
  std::string ssl_client_certificates{"none"};  // none | shown | required
  // [replication]
  std::string maximum_backup_rate{"100M"};
  int candidate_priority{50};
  bool replication_quorum{true};
  // [timeouts], seconds
  int start{60};
  int stop{60};
  int switchover_on_stop{30};  // 0: a primary that is stopped does not hand over first
  // [log]
  std::string log_level{"info"};
  std::string log_format{"text"};  // text | json

  friend bool operator==(const Config&, const Config&) = default;
};

// libpq's words for the certificate that it shows the monitor and other nodes; none when it shows none.
std::map<std::string, std::string> shown_certificate(const Config& config);
// What an HBA line says behind the method where such a certificate is asked for; "" where it is not.
std::string asked_certificate(const Config& config);

// Of --pgdata, as it is kept: absolute, without a slash at its end.
fs::path data_directory(const fs::path& given);
// The path rules of the header comment: the file that there is, else the one that `create` will make.
fs::path config_path_for(const fs::path& pgdata);
// `given`: --config; a bare name is of a file in the directory for new ones. Throws UserError(bad_arguments) when
// PGDATA has another file already.
fs::path config_path_for(const fs::path& pgdata, const std::optional<std::string>& given);
fs::path config_named(const std::string& given);
std::string default_state_directory(const fs::path& config_file);
// The package's unit for a node whose file is in /etc/pgvigil; "" for others.
std::string unit_of(const Config& config);

// Throws UserError(bad_config): "FILE:LINE:COLUMN: ..." for syntax errors, unknown sections and keys, wrong types,
// values out of range.
Config parse(const std::string& text, const fs::path& file);
Config load(const fs::path& file);
// For a daemon: UserError(bad_arguments) for the configuration of the other one, whose PostgreSQL it must not touch.
Config load(const fs::path& file, Role role);
std::string to_toml(const Config& config);  // with a comment line for each section
void save(const Config& config);            // atomic, 0600

// `section.key` access for `config get|set`; throws UserError(bad_arguments) for an unknown key, bad_config for a bad
// value. set() validates the whole.
std::vector<std::string> keys();
Type type_of(const std::string& key);
std::vector<std::pair<std::string, std::string>> explained();  // each key; what it means, may be, and is when not set
std::string get(const Config& config, const std::string& key);
void set(Config& config, const std::string& key, const std::string& value);

// What a running daemon cannot change: who it is, and where its PostgreSQL is. Gives `fresh` those of `running` and
// returns the keys that differed.
std::vector<std::string> keep_fixed(const Config& running, Config& fresh);

}  // namespace pgvigil::config
