// One local PostgreSQL: its data directory, its postmaster, its files. The monitor and the keeper each own one.
// It never renames or removes the data directory itself (it may be a mount point), only what is inside.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/model/types.hpp"
#include "common/os/process.hpp"

namespace pgvigil::postgres {

using Millis = std::chrono::milliseconds;
namespace fs = std::filesystem;

// Where the programs are: beside `pg_ctl` (--pgctl), else in PATH, else in the newest /usr/lib/postgresql/*/bin.
// Throws UserError(bad_arguments) naming what was tried.
fs::path find_bindir(const std::optional<fs::path>& pg_ctl);

struct InstanceSettings {
  fs::path pgdata;
  fs::path bindir;
  fs::path log;               // the postmaster's output
  fs::path socket_directory;  // for our own local sessions
  std::string listen_addresses{"*"};
  int port{5432};
  fs::path config_file;  // where these two lie outside PGDATA (as Debian has it); "" = inside
  fs::path hba_file;
  std::string superuser;  // the OS user's name by default; local sessions use it over the Unix socket (peer or trust)
};

// postmaster.pid (miscadmin.h, LOCK_FILE_LINE_*), as it stands there; "" what is not there (yet).
struct PidFile {
  std::string pid, port, socket_directory, status;  // lines 1, 4, 5 (the first of them) and 8
};
PidFile read_pid_file(const fs::path& pgdata);

enum class StopMode { smart, fast, immediate };

// From pg_controldata.
struct ControlData {
  std::string system_identifier;  // decimal
  Timeline timeline;              // "Latest checkpoint's TimeLineID"
  Lsn checkpoint;                 // "Latest checkpoint location"
  Lsn redo;
  Lsn min_recovery_end;            // 0 when none
  Timeline min_recovery_timeline;  // on which that lies; 0 when none
  std::uint64_t segment_size{0};   // of WAL, in bytes
  std::string state;               // "in production", "shut down", "shut down in recovery", "in archive recovery", ...
  bool checksums{false};
  bool wal_log_hints{false};
  // By the names of the settings: the least that a standby has to have of them.
  std::map<std::string, int> limits;
  // It ran read-write when it ended; no standby's control file says so, whichever way it ends.
  bool written() const { return state == "in production" || state == "shutting down" || state == "shut down"; }
  bool clean_shutdown() const { return state == "shut down" || state == "shut down in recovery"; }
};

class Instance {
 public:
  explicit Instance(InstanceSettings settings);
  const InstanceSettings& settings() const { return settings_; }

  // PG_VERSION is there, and not of an initdb that has not come to its end. A directory that is missing or empty is "no
  // cluster"; one with other things in it is also "no cluster", and initdb or clone then refuse it.
  bool has_cluster() const;
  bool directory_is_empty() const;  // missing counts as empty; lost+found is not counted
  int major_version() const;        // of PG_VERSION

  // initdb with data checksums, UTF8, C.UTF-8 (or the environment's locale), peer for local and `auth` for host
  // sessions. Killed at any point, it can be called again. Throws UserError when PGDATA is not empty, or as
  // clear_unfinished_initdb().
  boost::asio::awaitable<void> initdb(std::string auth);
  fs::path initdb_marker() const;  // beside `log`; there until initdb has come to its end
  bool initdb_unfinished() const;  // it is there
  // Empties PGDATA of what an initdb has left that was killed; nothing to do when none was. Throws UserError, and
  // removes nothing, when something there is not of an initdb.
  boost::asio::awaitable<void> clear_unfinished_initdb();

  // The live postmaster of this data directory, by postmaster.pid, checked against /proc/<pid>: that it runs in this
  // directory.
  std::optional<os::PidFd> postmaster() const;

  // By postmaster.pid it is in recovery still, and refuses every session: to ask it costs it a process, and its log a
  // line.
  bool starting() const;

  // Where the postmaster listens, for a person, when that is not where its settings have it: it runs without them.
  // Else "".
  std::string elsewhere(const os::PidFd& postmaster) const;

  // Starts the postmaster, or adopts the one that runs, and waits until it accepts sessions. Its process goes on
  // without ours. Throws UserError(postgres) with the last lines of its log when it ends instead. One that is found to
  // run without our settings is stopped, with an error: it has read a postgresql.conf that was being written (an
  // editor empties it first), and without them its commits wait for nobody. `settings`: before those of its files, for
  // as long as it runs.
  boost::asio::awaitable<void> start(Millis timeout, std::map<std::string, std::string> settings = {});
  // No error when it does not run. fast escalates to immediate, and that to SIGKILL of the postmaster and its children,
  // after `timeout` each (a stopped process - SIGSTOP - takes no other signal). Returns when the postmaster and all its
  // backends are gone.
  boost::asio::awaitable<void> stop(StopMode mode, Millis timeout);
  // A fast stop that another node waits for. Only walsenders are waited for that are not `expendable` (pids), and the
  // archiver for some seconds.
  boost::asio::awaitable<void> stop_for_successor(std::vector<pid_t> expendable, Millis timeout);
  // SIGKILL to all of its processes, the postmaster first. Waits for nothing.
  void kill() const;
  void reload() const;  // SIGHUP to the postmaster
  // By the titles of the postmaster's children, `others` (pids) aside: a user can have that name, too.
  bool has_walreceiver(const std::vector<pid_t>& others) const;

  boost::asio::awaitable<ControlData> control_data() const;

  // For local sessions: "host=<socket dir> port=.. user=.. dbname=.. application_name=pgvigil connect_timeout=..".
  std::string local_conninfo(const std::string& dbname = "postgres") const;

  // pgdata/postgresql.conf and pg_hba.conf, unless these lie elsewhere.
  fs::path config_file() const;
  fs::path hba_file() const;

 private:
  InstanceSettings settings_;
};

// When to ask a PostgreSQL that is coming up for a session: as soon as postmaster.pid says that it accepts them, and
// now and then all the same.
class Asking {
 public:
  bool due(const Instance& instance);

 private:
  std::chrono::steady_clock::time_point asked_{};
};

}  // namespace pgvigil::postgres
