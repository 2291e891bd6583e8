// The files inside a data directory that pgvigil writes: settings, standby settings, HBA entries. Everything here is
// idempotent and leaves the user's own lines untouched, byte for byte.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil::postgres {

namespace fs = std::filesystem;

// name -> value (unquoted), as they go into pgvigil's own settings file.
using Settings = std::map<std::string, std::string>;

// Its name, in the data directory.
inline constexpr const char* settings_file = "postgresql-pgvigil.conf";

// The text of a settings file: a header that says who writes it, then `name = 'value'` lines with quotes doubled and
// backslashes doubled.
std::string settings_text(const Settings& settings);

// Writes `<pgdata>/postgresql-pgvigil.conf` atomically (0600) and sees to it that postgresql.conf, which may lie
// elsewhere, ends with its include line (so that it wins over earlier settings). Returns true when anything has changed
// (a reload is due).
bool write_settings(const fs::path& pgdata, const fs::path& postgresql_conf, const Settings& settings);
// What is in the file now; empty when there is none.
Settings read_settings(const fs::path& pgdata);
// postgresql.auto.conf (ALTER SYSTEM, pg_basebackup -R) wins over postgresql.conf: takes settings of these names, in
// small letters, out of it. Returns those that were there.
std::vector<std::string> drop_overrides(const fs::path& pgdata, const std::vector<std::string>& names);

// standby.signal made or removed, with fsync of the directory. True when something changed.
bool set_standby_signal(const fs::path& pgdata, bool standby);
bool has_standby_signal(const fs::path& pgdata);

// A file that is the user's too: replaces it by what `change` makes of it. What he has added until the moment it was
// replaced goes over into the new one. False: nothing is to be changed.
bool edit_users_file(const fs::path& path, const std::function<std::string(const std::string&)>& change);

struct HbaEntry {
  std::string type{"host"};  // host, hostssl, local
  std::string database;      // "replication", "all", a name (quoted by us when needed)
  std::string user;          // "all", a name, "+name": its members
  std::string address;       // an IP address gets /32 or /128; a name stays a name; empty for local
  std::string method;        // trust, scram-sha-256, peer; with its options
};

// Puts exactly `entries` between our two marker lines at the top of `hba_file` (the first match wins in HBA); replaces
// an older block. An empty list removes the block. Returns true when the file has changed. Throws pgvigil::Error when a
// marker is damaged (only one of the two there).
bool write_hba(const fs::path& hba_file, const std::vector<HbaEntry>& entries);
// Whether a line outside of our block names `user`: somebody has decided themselves where it may come in from.
bool hba_names(const fs::path& hba_file, const std::string& user);
// Takes all that is ours out of these files: PostgreSQL is as if pgvigil had never been there. `hba`: also our block.
void remove_own_lines(const fs::path& pgdata, const fs::path& postgresql_conf, const fs::path& hba_file, bool hba);
// The text of one line, for tests and for messages.
std::string hba_line(const HbaEntry& entry);

}  // namespace pgvigil::postgres
