#include "keeper/actions/upstream.hpp"

#include <algorithm>

#include "common/log/log.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "common/pg/connection.hpp"
#include "keeper/actions/aside.hpp"
#include "keeper/actions/local_sql.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

constexpr pg::Millis short_wait{5000};

fs::path marker(const Node& node) {
  return node.file("copy-in-progress");
}

// Everything inside PGDATA, never the directory itself: it may be a mount point.
void empty_directory(const fs::path& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().filename() != "lost+found") fs::remove_all(entry.path());
  }
}

std::string tail(const std::string& text) {
  std::string line = text;
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  const auto start = line.find_last_of("\n\r");
  return start == std::string::npos ? line : line.substr(start + 1);
}

asio::awaitable<void> base_backup(const Node& node, postgres::Instance& instance, const Peer& upstream,
                                  Progress progress) {
  const fs::path directory = instance.settings().pgdata;
  os::write_file_atomic(marker(node), "base backup\n");
  os::make_directories(directory, 0700);
  empty_directory(directory);
  std::vector<std::string> argv{(instance.settings().bindir / "pg_basebackup").string(),
                                "--pgdata=" + directory.string(),
                                "--dbname=" + peer_conninfo(node, upstream, replication_role, ""),
                                "--wal-method=stream",
                                "--checkpoint=fast",
                                "--slot=" + standby_name(node.id),
                                "--max-rate=" + node.config.maximum_backup_rate,
                                "--no-password",
                                "--progress"};
  os::ProcessOptions options;
  options.on_line = progress;
  options.environment["LC_ALL"] = "C";
  progress("base backup from " + upstream.name);
  const os::ProcessResult result = co_await os::run(argv, options);
  if (!result.ok()) throw Error("pg_basebackup from " + upstream.name + " failed: " + tail(result.output));
  fs::remove(marker(node));
  log::info("copied {} by a base backup", upstream.name);
}

// pg_rewind looks at the source's control file, which shows a new timeline only after its first checkpoint.
asio::awaitable<void> wait_for_checkpoint(const Node& node, const Peer& upstream, Timeline timeline) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "postgres");
  pg::Connection source = co_await pg::Connection::connect(conninfo, short_wait);
  const pg::Result row = co_await source.query("SELECT timeline_id FROM pg_control_checkpoint()", {}, short_wait);
  if (row.integer(0, "timeline_id") < static_cast<std::int64_t>(timeline.value)) {
    throw Error(upstream.name + " has not finished its first checkpoint on timeline " + std::to_string(timeline.value) +
                " yet");
  }
}

asio::awaitable<bool> rewind(const Node& node, postgres::Instance& instance, const Peer& upstream, Progress progress) {
  const std::string source = peer_conninfo(node, upstream, replication_role, "postgres");
  os::write_file_atomic(marker(node), "rewind\n");
  std::vector<std::string> argv{(instance.settings().bindir / "pg_rewind").string(),
                                "--target-pgdata=" + instance.settings().pgdata.string(), "--source-server=" + source,
                                "--progress"};
  os::ProcessOptions options;
  options.on_line = progress;
  options.environment["LC_ALL"] = "C";
  progress("rewind to the history of " + upstream.name);
  const os::ProcessResult result = co_await os::run(argv, options);
  if (!result.ok()) {
    log::warn("pg_rewind from {} failed, a base backup follows: {}", upstream.name, result.output);
    co_return false;  // the marker stays: the directory is not to be trusted
  }
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

// The upstream has the segment in which `position` lies. Asked over SQL, for the walreceiver's complaint is only in the
// log.
asio::awaitable<bool> has_wal(const Node& node, const Peer& upstream, const WalPosition& position) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "postgres");
  pg::Connection source = co_await pg::Connection::connect(conninfo, short_wait);
  std::vector<pg::Param> params;
  params.emplace_back(to_string(position.lsn));
  // Any timeline's segment of this place will do: a descendant begins with a copy of its ancestor's.
  const pg::Result row = co_await source.query(
      "SELECT count(*) > 0 AS found FROM pg_ls_dir('pg_wal', true, false) AS name, "
      "(SELECT setting::numeric AS size FROM pg_settings WHERE name = 'wal_segment_size') AS s "
      "WHERE name ~ '^[0-9A-F]{24}$' AND ('x' || substr(name, 9, 8))::bit(32)::bigint * div(4294967296, s.size) + "
      "('x' || substr(name, 17, 8))::bit(32)::bigint <= div($1::pg_lsn - '0/0'::pg_lsn, s.size)",
      params, short_wait);
  co_return row.boolean(0, "found");
}

}  // namespace

asio::awaitable<void> prepare_standby(const Node& node, postgres::Instance& instance, Preparing& preparing) {
  const Peer& upstream = preparing.upstream;
  const UpstreamIdentity identity = co_await identify(node, upstream);
  DataDirectory directory;
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
    directory.wal_available = co_await has_wal(node, upstream, directory.local.position);
  }
  const Prepared prepared = choose_preparation(directory, identity, upstream.name);
  switch (prepared.what) {
    case Preparation::none: co_return;
    case Preparation::refuse: throw Error(prepared.why);
    case Preparation::base_backup:
      log::info("base backup from {}: {}", upstream.name, prepared.why);
      co_await instance.stop(directory.copy_unfinished ? postgres::StopMode::immediate : postgres::StopMode::fast,
                             std::chrono::seconds{20});
      if (!directory.copy_unfinished) keep_aside(node, directory.local.position, identity.position);
      co_await base_backup(node, instance, upstream, preparing.progress);
      break;
    case Preparation::rewind: {
      log::info("rewind to {}: {}", upstream.name, prepared.why);
      co_await wait_for_checkpoint(node, upstream, identity.position.timeline);
      co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{20});
      keep_aside(node, directory.local.position, identity.position);
      const bool rewound = co_await rewind(node, instance, upstream, preparing.progress);
      if (!rewound) co_await base_backup(node, instance, upstream, preparing.progress);
      break;
    }
  }
  preparing.copied = true;
}

}  // namespace pgvigil::keeper
