#include "keeper/actions/upstream.hpp"

#include <algorithm>
#include <sstream>

#include "common/log/log.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "common/pg/connection.hpp"

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
  LocalPosition position;
  position.timeline = control.timeline;
  position.lsn = std::max(control.checkpoint, control.min_recovery_end);
  position.exact = control.clean_shutdown();
  co_return position;
}

}  // namespace

bool copy_unfinished(const Node& node) {
  return fs::exists(marker(node));
}

std::vector<HistoryEntry> parse_history(const std::string& text) {
  std::vector<HistoryEntry> entries;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto start = line.find_first_not_of(" \t");
    if (start == std::string::npos || line[start] == '#') continue;
    std::istringstream fields(line);
    HistoryEntry entry;
    std::string lsn;
    if (!(fields >> entry.timeline.value >> lsn)) throw Error("malformed timeline history line: " + line);
    const auto position = parse_lsn(lsn);
    if (!position) throw Error("malformed switch point in a timeline history: " + line);
    entry.switch_point = *position;
    entries.push_back(entry);
  }
  return entries;
}

Relation compare(const LocalPosition& local, const UpstreamIdentity& upstream) {
  if (local.timeline == upstream.timeline) return Relation::same_history;
  const auto fork = std::find_if(upstream.history.begin(), upstream.history.end(),
                                 [&](const HistoryEntry& entry) { return entry.timeline == local.timeline; });
  if (fork == upstream.history.end()) return local.timeline > upstream.timeline ? Relation::ahead : Relation::diverged;
  if (local.lsn > fork->switch_point) return Relation::diverged;
  return local.exact ? Relation::same_history : Relation::unknown;
}

asio::awaitable<UpstreamIdentity> identify(const Node& node, const Peer& upstream) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "") + " replication='true'";
  pg::Connection connection = co_await pg::Connection::connect(conninfo, short_wait);
  const pg::Result system = co_await connection.query("IDENTIFY_SYSTEM", {}, short_wait);
  UpstreamIdentity identity;
  identity.system_identifier = system.text(0, "systemid");
  identity.timeline.value = static_cast<std::uint32_t>(system.integer(0, "timeline"));
  identity.position = parse_lsn(system.text(0, "xlogpos")).value_or(Lsn{});
  if (identity.timeline.value > 1) {
    const std::string command = "TIMELINE_HISTORY " + std::to_string(identity.timeline.value);
    const pg::Result history = co_await connection.query(command, {}, short_wait);
    std::string text = history.text(0, "content");
    identity.history = parse_history(text);
  }
  co_return identity;
}

asio::awaitable<void> prepare_standby(const Node& node, postgres::Instance& instance, const Peer& upstream,
                                      std::optional<LocalPosition> running, Progress progress) {
  const UpstreamIdentity identity = co_await identify(node, upstream);
  const bool have_data = instance.has_cluster();
  if (!have_data && !instance.directory_is_empty() && !copy_unfinished(node)) {
    throw Error(instance.settings().pgdata.string() + " is not empty and holds no cluster; it is left alone: empty it");
  }
  if (!have_data || copy_unfinished(node)) {
    co_await instance.stop(postgres::StopMode::immediate, std::chrono::seconds{10});
    co_await base_backup(node, instance, upstream, progress);
    co_return;
  }
  const postgres::ControlData control = co_await instance.control_data();
  if (control.system_identifier != identity.system_identifier) {
    throw Error("PGDATA is of another system (" + control.system_identifier + ") than " + upstream.name + " (" +
                identity.system_identifier + "); it is left alone: drop this node, or empty its PGDATA");
  }
  LocalPosition local;
  if (running) {
    local = *running;
  } else {
    local = co_await stopped_position(instance);
  }
  const Relation relation = compare(local, identity);
  if (relation == Relation::same_history) co_return;
  if (relation == Relation::ahead) {
    throw Error("this node is on timeline " + std::to_string(local.timeline.value) + ", which " + upstream.name +
                " (timeline " + std::to_string(identity.timeline.value) + ") does not know; nothing is overwritten");
  }
  co_await wait_for_checkpoint(node, upstream, identity.timeline);
  co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{20});
  const bool rewound = co_await rewind(node, instance, upstream, progress);
  if (!rewound) co_await base_backup(node, instance, upstream, progress);
}

}  // namespace pgvigil::keeper
