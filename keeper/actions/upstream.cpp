#include "keeper/actions/upstream.hpp"

#include <algorithm>
#include <sstream>

#include "common/log/log.hpp"
#include "common/os/event.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "common/pg/connection.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/data_directory.hpp"
#include "keeper/actions/aside.hpp"
#include "keeper/actions/local_sql.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

constexpr pg::Millis short_wait{5000};

constexpr std::string_view wal_key = "pg_wal ";  // in the marker

fs::path marker(const Node& node) {
  return node.file("copy-in-progress");
}

std::string tail(const std::string& text) {
  std::string line = text;
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  const auto start = line.find_last_of("\n\r");
  return start == std::string::npos ? line : line.substr(start + 1);
}

// Asked over the replication protocol: its sessions have places of their own (max_wal_senders), when clients that wait
// for this very node have taken all others. It knows no parameters.
asio::awaitable<pg::Result> ask(const Node& node, const Peer& upstream, std::string sql) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "postgres") + " replication='database'";
  pg::Connection source = co_await pg::Connection::connect(conninfo, short_wait);
  co_return co_await source.query(sql, {}, short_wait);
}

// Where the upstream's tablespaces lie, and so those of a copy.
asio::awaitable<std::vector<fs::path>> tablespaces_of(const Node& node, const Peer& upstream) {
  const pg::Result rows = co_await ask(
      node, upstream,
      "SELECT pg_tablespace_location(oid) AS location FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'");
  std::vector<fs::path> locations;
  for (int row = 0; row < rows.rows(); ++row) locations.emplace_back(rows.text(row, "location"));
  co_return locations;
}

bool has_nothing(const fs::path& directory) {
  std::error_code error;
  return !fs::exists(directory, error) || fs::is_empty(directory, error);
}

// pg_basebackup fills the tablespaces before it makes the links to them. The marker names those that had nothing in
// them when it began: only what a copy that broke off has left there may be removed. And it names the directory to
// which the link pg_wal goes: that link is gone between two attempts.
void write_marker(const Node& node, const std::vector<fs::path>& filling, const std::optional<fs::path>& wal) {
  std::string text = "base backup\n";
  if (wal) text += std::string(wal_key) + wal->string() + "\n";
  for (const fs::path& directory : filling) text += directory.string() + "\n";
  os::write_file_atomic(marker(node), text);
}

std::vector<fs::path> half_filled(const Node& node) {
  std::vector<fs::path> directories;
  std::istringstream lines(os::read_file(marker(node)).value_or(std::string()));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('/')) directories.emplace_back(line);
  }
  return directories;
}

std::optional<fs::path> wal_elsewhere(const Node& node) {
  if (auto linked = postgres::linked_wal(node.pgdata())) return linked;
  std::istringstream lines(os::read_file(marker(node)).value_or(std::string()));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(wal_key)) return fs::path(line.substr(wal_key.size()));
  }
  return std::nullopt;
}

asio::awaitable<void> base_backup(const Node& node, postgres::Instance& instance, const Peer& upstream,
                                  Progress progress) {
  const fs::path directory = instance.settings().pgdata;
  std::vector<fs::path> filling = co_await tablespaces_of(node, upstream);
  const auto half = half_filled(node);
  const auto wal = wal_elsewhere(node);
  if (wal && !fs::is_directory(*wal))
    throw Error("there is no " + wal->string() + ", to which pg_wal is a link; is its disk mounted?");
  postgres::refuse_mount_point(directory);
  if (wal) postgres::refuse_mount_point(*wal);
  for (const fs::path& location : filling) postgres::refuse_mount_point(location);
  write_marker(node, half, wal);
  os::make_directories(directory, 0700);
  postgres::empty_cluster(directory);
  for (const fs::path& left : half) postgres::empty_directory(left);
  if (wal) postgres::empty_directory(*wal);  // what an attempt has left there that broke off
  std::erase_if(filling, [](const fs::path& location) { return !has_nothing(location); });
  write_marker(node, filling, wal);
  std::vector<std::string> argv{(instance.settings().bindir / "pg_basebackup").string(),
                                "--pgdata=" + directory.string(),
                                "--dbname=" + peer_conninfo(node, upstream, replication_role, ""),
                                "--wal-method=stream",
                                "--checkpoint=fast",
                                "--slot=" + standby_name(node.id),
                                "--max-rate=" + node.config.maximum_backup_rate,
                                "--no-password",
                                "--progress"};
  if (wal) argv.push_back("--waldir=" + wal->string());
  os::ProcessOptions options;
  options.on_line = progress;
  options.timeout.reset();  // a new order ends it
  options.environment["LC_ALL"] = "C";
  progress("base backup from " + upstream.name);
  const os::ProcessResult result = co_await os::run(argv, options);
  if (!result.ok()) throw Error("pg_basebackup from " + upstream.name + " failed: " + tail(result.output));
  fs::remove(marker(node));
  log::info("copied {} by a base backup", upstream.name);
}

// pg_rewind looks at the source's control file, which shows a new timeline only after its first checkpoint.
asio::awaitable<void> wait_for_checkpoint(const Node& node, const Peer& upstream, Timeline timeline) {
  const pg::Result row = co_await ask(node, upstream, "SELECT timeline_id FROM pg_control_checkpoint()");
  if (row.integer(0, "timeline_id") < static_cast<std::int64_t>(timeline.value)) {
    throw Error(upstream.name + " has not finished its first checkpoint on timeline " + std::to_string(timeline.value) +
                " yet");
  }
}

// pg_rewind needs a session like any client's. When none comes free in time the clients may be waiting for this very
// node: a base backup needs none.
asio::awaitable<bool> has_free_session(const Node& node, const Peer& upstream, Progress progress) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "postgres");
  for (int attempt = 0; attempt < 20; ++attempt) {
    std::optional<std::string> rejected;
    try {
      co_await pg::Connection::connect(conninfo, short_wait);
    } catch (const pg::ConnectionError& error) {
      if (error.kind != pg::ConnectionError::Kind::rejected) throw;
      rejected = error.what();
    }
    if (!rejected) co_return true;
    progress("waits for a session on " + upstream.name + ", which pg_rewind needs: " + *rejected);
    co_await os::sleep_for(pg::Millis{500});
  }
  co_return false;
}

// pg_rewind removes what its source does not have: our configuration, when the source has its own outside PGDATA.
class KeptFile {
 public:
  explicit KeptFile(fs::path path) : path_(std::move(path)), content_(os::read_file(path_)) {}
  void put_back() const {
    if (content_ && !fs::exists(path_)) os::write_file_atomic(path_, *content_, 0600);
  }

 private:
  fs::path path_;
  std::optional<std::string> content_;
};

// pg_rewind finishes the recovery of a target that has crashed; but one of PostgreSQL 13 and 14 knows only a
// configuration that lies in PGDATA. What goes wrong here pg_rewind will say again.
asio::awaitable<void> finish_recovery(const postgres::Instance& instance) {
  const std::vector<std::string> argv{
      (instance.settings().bindir / "postgres").string(), "--single", "-D", instance.settings().pgdata.string(), "-c",
      "config_file=" + instance.config_file().string(),   "template1"};
  os::ProcessOptions options;
  options.timeout.reset();
  const os::ProcessResult result = co_await os::run(argv, options);
  if (!result.ok()) log::warn("the recovery before a rewind failed: {}", result.output);
}

asio::awaitable<bool> rewind(const Node& node, postgres::Instance& instance, const Peer& upstream, Timeline timeline,
                             Progress progress) {
  const std::string source = peer_conninfo(node, upstream, replication_role, "postgres");
  os::write_file_atomic(marker(node), "rewind\n");
  std::vector<std::string> argv{(instance.settings().bindir / "pg_rewind").string(),
                                "--target-pgdata=" + instance.settings().pgdata.string(), "--source-server=" + source,
                                "--progress"};
  const bool elsewhere = !instance.settings().config_file.empty();
  const bool has_option = instance.major_version() >= 15;
  if (elsewhere && has_option) argv.push_back("--config-file=" + instance.config_file().string());
  os::ProcessOptions options;
  options.on_line = progress;
  options.timeout.reset();  // a new order ends it
  options.environment["LC_ALL"] = "C";
  progress("rewind to the history of " + upstream.name);
  const postgres::ControlData control = co_await instance.control_data();
  if (!control.clean_shutdown()) {
    // Its recovery is finished by a single-user server, which refuses to be a standby. One that ended in the middle of
    // a promotion has the sign still; configure_standby gives it again. (On one and the same timeline nothing is
    // rewound, and what a recovery adds would stay.)
    if (control.timeline < timeline) postgres::set_standby_signal(instance.settings().pgdata, false);
    if (elsewhere && !has_option) co_await finish_recovery(instance);
  }
  const KeptFile config(instance.config_file());
  const KeptFile hba(instance.hba_file());
  const os::ProcessResult result = co_await os::run(argv, options);
  if (!result.ok()) {
    log::warn("pg_rewind from {} failed, a base backup follows: {}", upstream.name, result.output);
    co_return false;  // the marker stays: the directory is not to be trusted
  }
  config.put_back();
  hba.put_back();
  fs::remove(marker(node));
  log::info("rewound to the history of {}: {}", upstream.name, tail(result.output));
  co_return true;
}

asio::awaitable<LocalPosition> stopped_position(postgres::Instance& instance) {
  const postgres::ControlData control = co_await instance.control_data();
  LocalPosition local;
  local.position.timeline = control.timeline;
  local.position.lsn = std::max(control.checkpoint, control.min_recovery_end);
  local.position.history = read_history(instance.settings().pgdata, control.timeline).value_or(History{});
  local.exact = control.clean_shutdown();
  co_return local;
}

}  // namespace

bool copy_unfinished(const Node& node) {
  return fs::exists(marker(node));
}

asio::awaitable<UpstreamIdentity> identify(const Node& node, const Peer& upstream) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "") + " replication='true'";
  pg::Connection connection = co_await pg::Connection::connect(conninfo, short_wait);
  const pg::Result system = co_await connection.query("IDENTIFY_SYSTEM", {}, short_wait);
  UpstreamIdentity identity;
  identity.system_identifier = system.text(0, "systemid");
  WalPosition& position = identity.position;
  position.timeline.value = static_cast<std::uint32_t>(system.integer(0, "timeline"));
  position.lsn = parse_lsn(system.text(0, "xlogpos")).value_or(Lsn{});
  if (position.timeline.value > 1) {
    const std::string command = "TIMELINE_HISTORY " + std::to_string(position.timeline.value);
    const pg::Result history = co_await connection.query(command, {}, short_wait);
    position.history = parse_history_file(history.text(0, "content"));
  }
  co_return identity;
}

namespace {

// The upstream has the segment in which `place` lies. Asked over SQL, for the walreceiver's complaint is only in the
// log.
asio::awaitable<bool> has_wal(const Node& node, const Peer& upstream, Lsn place) {
  // Any timeline's segment of this place will do: a descendant begins with a copy of its ancestor's.
  const std::string sql =
      "SELECT count(*) > 0 AS found FROM pg_ls_dir('pg_wal', true, false) AS name, "
      "(SELECT setting::numeric AS size FROM pg_settings WHERE name = 'wal_segment_size') AS s "
      "WHERE name ~ '^[0-9A-F]{24}$' AND ('x' || substr(name, 9, 8))::bit(32)::bigint * div(4294967296, s.size) + "
      "('x' || substr(name, 17, 8))::bit(32)::bigint <= div(" +
      pg::quote_literal(to_string(place)) + "::pg_lsn - '0/0'::pg_lsn, s.size)";
  const pg::Result row = co_await ask(node, upstream, sql);
  co_return row.boolean(0, "found");
}

// From here on the WAL is this node's alone. What somebody else's promotion has begun may have the number and the
// beginning of another one's timeline.
Lsn leaves_upstream(const DataDirectory& directory, const UpstreamIdentity& upstream) {
  const WalPosition& local = directory.local.position;
  if (directory.foreign_promotion && !local.history.empty()) return local.history.back().switch_point;
  return common_point(local, upstream.position);
}

}  // namespace

asio::awaitable<void> prepare_standby(const Node& node, postgres::Instance& instance, Preparing& preparing) {
  const Peer& upstream = preparing.upstream;
  const UpstreamIdentity identity = co_await identify(node, upstream);
  DataDirectory directory;
  Lsn fork;
  directory.has_cluster = instance.has_cluster();
  directory.empty = instance.directory_is_empty();
  directory.copy_unfinished = copy_unfinished(node);
  directory.foreign_promotion = preparing.foreign_promotion;
  if (directory.has_cluster && !directory.copy_unfinished) {
    const postgres::ControlData control = co_await instance.control_data();
    directory.system_identifier = control.system_identifier;
    if (preparing.running) {
      directory.local = *preparing.running;
    } else {
      directory.local = co_await stopped_position(instance);
    }
    const fs::path wal = node.pgdata() / "pg_wal";
    const WalPosition& local = directory.local.position;
    fork = leaves_upstream(directory, identity);
    if (directory.foreign_promotion) directory.own_wal_whole = whole_between(wal, local.timeline, fork, local.lsn);
    // A standby goes on where the WAL that is here ends, however much of it is still to be replayed; the upstream's
    // slot has kept no more than that.
    const Lsn end = received_up_to(wal, local.timeline, local.lsn);
    directory.wal_available = co_await has_wal(node, upstream, end);
  }
  const Prepared prepared = choose_preparation(directory, identity, upstream.name);
  switch (prepared.what) {
    case Preparation::none: co_return;
    case Preparation::refuse: throw Error(prepared.why);
    case Preparation::base_backup:
      postgres::refuse_mount_point(instance.settings().pgdata);  // before it is stopped
      log::info("base backup from {}: {}", upstream.name, prepared.why);
      co_await instance.stop(directory.copy_unfinished ? postgres::StopMode::immediate : postgres::StopMode::fast,
                             std::chrono::seconds{20});
      if (!directory.copy_unfinished)
        co_await keep_aside(node, directory.local.position.timeline, fork, preparing.progress);
      preparing.begins();
      co_await base_backup(node, instance, upstream, preparing.progress);
      break;
    case Preparation::rewind: {
      log::info("rewind to {}: {}", upstream.name, prepared.why);
      co_await wait_for_checkpoint(node, upstream, identity.position.timeline);
      bool rewound = co_await has_free_session(node, upstream, preparing.progress);
      if (!rewound) log::warn("{} has no free session for pg_rewind: a base backup instead", upstream.name);
      co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{20});
      co_await keep_aside(node, directory.local.position.timeline, fork, preparing.progress);
      preparing.begins();
      if (rewound) rewound = co_await rewind(node, instance, upstream, identity.position.timeline, preparing.progress);
      if (!rewound) co_await base_backup(node, instance, upstream, preparing.progress);
      break;
    }
  }
  preparing.copied = true;
}

}  // namespace pgvigil::keeper
