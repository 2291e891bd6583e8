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
#include "keeper/actions/rewind.hpp"
#include "keeper/actions/stopped.hpp"
#include "keeper/actions/upstream_sql.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view wal_key = "pg_wal ";  // in the marker

fs::path marker(const Node& node) {
  return node.file("copy-in-progress");
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
  if (!result.ok()) throw Error("pg_basebackup from " + upstream.name + " failed: " + result.last_line());
  fs::remove(marker(node));
  log::info("copied {} by a base backup", upstream.name);
}

}  // namespace

bool copy_unfinished(const Node& node) {
  return fs::exists(marker(node));
}

namespace {

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
    const fs::path wal = node.pgdata() / "pg_wal";
    directory.system_identifier = control.system_identifier;
    Lsn recovery_begins;
    if (preparing.running) {
      directory.local = *preparing.running;
    } else {
      const Stopped stopped = co_await read_stopped(instance);
      directory.local = stopped.local;
      recovery_begins = stopped.recovery_begins;
    }
    const WalPosition& local = directory.local.position;
    fork = leaves_upstream(directory, identity);
    if (directory.foreign_promotion) directory.own_wal_whole = whole_between(wal, local.timeline, fork, local.lsn);
    // A standby goes on where the WAL that is here ends, however much of it is still to be replayed; the upstream's
    // slot has kept no more than that. What has parted goes on where it has.
    Lsn end = preparing.running ? received_up_to(wal, local.timeline, local.lsn)
                                : recovered_up_to(wal, identity.position, recovery_begins);
    if (!contains(identity.position, local)) end = std::min(end, fork);
    directory.wal_available = co_await can_send(node, upstream, identity, end, control.segment_size);
    if (!directory.wal_available && co_await in_archive(instance, identity.position, end, control.segment_size)) {
      directory.wal_available = preparing.patience.lasts(end, ArchivePatience::Clock::now());
      if (!directory.wal_available) log::warn("PostgreSQL does not go on with what comes from the archive");
    }
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
      if (rewound) {
        os::write_file_atomic(marker(node), "rewind\n");  // stays when it fails
        rewound = co_await rewind(node, instance, upstream, identity, preparing.progress);
        if (rewound) fs::remove(marker(node));
      }
      if (!rewound) co_await base_backup(node, instance, upstream, preparing.progress);
      break;
    }
  }
  preparing.copied = true;
}

}  // namespace pgvigil::keeper
