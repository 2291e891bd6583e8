#include "keeper/actions/upstream.hpp"

#include <algorithm>

#include "common/config/values.hpp"
#include "common/log/log.hpp"
#include "common/os/event.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "common/pg/connection.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/data_directory.hpp"
#include "keeper/actions/aside.hpp"
#include "keeper/actions/copy_marker.hpp"
#include "keeper/actions/rewind.hpp"
#include "keeper/actions/stopped.hpp"
#include "keeper/actions/upstream_sql.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

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

// One from an older version's file is not known to be good, and would be refused when PGDATA is empty already.
std::string rate_of(const config::Config& config) {
  if (config::is_backup_rate(config.maximum_backup_rate)) return config.maximum_backup_rate;
  const std::string usual = config::Config{}.maximum_backup_rate;
  log::warn("replication.maximum_backup_rate \"{}\" is not one that pg_basebackup takes; it is {} now",
            config.maximum_backup_rate, usual);
  return usual;
}

// The directories that a base backup fills beside PGDATA.
struct Places {
  std::vector<fs::path> tablespaces;
  std::optional<fs::path> wal;  // to which pg_wal is a link
};

// Throws what can be known to stand in the way of a base backup: before PostgreSQL is stopped and WAL is kept aside for
// it.
asio::awaitable<Places> places_of_copy(const Node& node, const Peer& upstream) {
  Places places;
  places.tablespaces = co_await tablespaces_of(node, upstream);
  places.wal = wal_elsewhere(node);
  if (places.wal && !fs::is_directory(*places.wal))
    throw Error("there is no " + places.wal->string() + ", to which pg_wal is a link; is its disk mounted?");
  postgres::refuse_mount_point(node.pgdata());
  if (places.wal) postgres::refuse_mount_point(*places.wal);
  for (const fs::path& location : places.tablespaces) postgres::refuse_mount_point(location);
  co_return places;
}

asio::awaitable<void> base_backup(const Node& node, postgres::Instance& instance, const Peer& upstream, Places places,
                                  Progress progress) {
  const fs::path directory = instance.settings().pgdata;
  const auto half = half_filled(node);
  const auto& wal = places.wal;
  std::vector<fs::path>& filling = places.tablespaces;
  base_backup_begins(node, half, wal);
  os::make_directories(directory, 0700);
  postgres::empty_cluster(directory);
  for (const fs::path& left : half) postgres::empty_directory(left);
  if (wal) postgres::empty_directory(*wal);  // what an attempt has left there that broke off
  std::erase_if(filling, [](const fs::path& location) { return !has_nothing(location); });
  base_backup_begins(node, filling, wal);
  std::vector<std::string> argv{(instance.settings().bindir / "pg_basebackup").string(),
                                "--pgdata=" + directory.string(),
                                "--dbname=" + peer_conninfo(node, upstream, replication_role, ""),
                                "--wal-method=stream",
                                "--checkpoint=fast",
                                "--slot=" + standby_name(node.id),
                                "--max-rate=" + rate_of(node.config),
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
  log::info("copied {} by a base backup", upstream.name);
}

// The upstream is, or was, on the timeline that is here, and came to it by the same way.
bool knows_timeline(const WalPosition& upstream, const WalPosition& local) {
  History way = upstream.history;
  way.push_back({upstream.timeline, upstream.lsn});
  const std::size_t at = local.history.size();
  return way.size() > at && way[at].timeline == local.timeline &&
         std::equal(local.history.begin(), local.history.end(), way.begin());
}

// From here on the WAL may be this node's alone. What somebody else's promotion has begun may have the number and the
// beginning of another one's timeline; and where somebody else has begun to write on a timeline nobody knows.
Lsn own_from(const DataDirectory& directory, const UpstreamIdentity& upstream) {
  const WalPosition& local = directory.local.position;
  if (!directory.foreign_promotion) return common_point(local, upstream.position);
  return local.history.empty() ? Lsn{} : local.history.back().switch_point;
}

// What of this node's WAL may be nobody else's.
struct Own {
  WalPosition end;
  Lsn from;
};

asio::awaitable<void> copy_anew(const Node& node, postgres::Instance& instance, Preparing& preparing,
                                const std::optional<Own>& own) {
  const Places places = co_await places_of_copy(node, preparing.upstream);
  co_await instance.stop(copy_unfinished(node) ? postgres::StopMode::immediate : postgres::StopMode::fast,
                         std::chrono::seconds{20});
  if (own) co_await keep_aside(node, own->end, own->from, preparing.progress);
  preparing.begins();
  co_await base_backup(node, instance, preparing.upstream, places, preparing.progress);
}

asio::awaitable<void> rewind_or_copy(const Node& node, postgres::Instance& instance, Preparing& preparing,
                                     const UpstreamIdentity& identity, const std::optional<Own>& own) {
  const Peer& upstream = preparing.upstream;
  co_await wait_for_checkpoint(node, upstream, identity.position.timeline);
  const bool session = co_await has_free_session(node, upstream, preparing.progress);
  if (!session) {
    log::warn("{} has no free session for pg_rewind: a base backup instead", upstream.name);
    co_await copy_anew(node, instance, preparing, own);
    co_return;
  }
  co_await instance.stop(postgres::StopMode::fast, std::chrono::seconds{20});
  if (own) co_await keep_aside(node, own->end, own->from, preparing.progress);
  preparing.begins();
  rewind_begins(node);
  const bool rewound = co_await rewind(node, instance, upstream, identity, preparing.progress);
  if (rewound) co_return;
  const Places places = co_await places_of_copy(node, upstream);
  co_await base_backup(node, instance, upstream, places, preparing.progress);
}

}  // namespace

asio::awaitable<void> prepare_standby(const Node& node, postgres::Instance& instance, Preparing& preparing) {
  const Peer& upstream = preparing.upstream;
  const UpstreamIdentity identity = co_await identify(node, upstream);
  co_await instance.clear_unfinished_initdb();  // of an order to be the first node
  DataDirectory directory;
  std::optional<Own> own;
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
    own = Own{local, own_from(directory, identity)};
    // Of a timeline that is the group's it has removed the beginning long ago, as everybody has.
    if (directory.foreign_promotion && !knows_timeline(identity.position, local))
      directory.own_wal_whole = whole_between(wal, local.timeline, own->from, local.lsn);
    // A standby goes on where the WAL that is here ends, however much of it is still to be replayed; the upstream's
    // slot has kept no more than that. What has parted goes on where it has.
    Lsn end = preparing.running ? received_up_to(wal, local.timeline, local.lsn)
                                : recovered_up_to(wal, identity.position, recovery_begins);
    if (!contains(identity.position, local)) end = std::min(end, common_point(local, identity.position));
    directory.wal_available = co_await can_send(node, upstream, identity, end, control.segment_size);
    if (!directory.wal_available && co_await in_archive(instance, identity.position, end, control.segment_size)) {
      directory.wal_available = preparing.patience.lasts(end, ArchivePatience::Clock::now());
      if (!directory.wal_available) log::warn("PostgreSQL does not go on with what comes from the archive");
    }
  }
  const Prepared prepared = choose_preparation(directory, identity, upstream.name);
  switch (prepared.what) {
    case Preparation::none: preparing.fits = identity.position; co_return;
    case Preparation::refuse: throw Error(prepared.why);
    case Preparation::base_backup:
      log::info("base backup from {}: {}", upstream.name, prepared.why);
      co_await copy_anew(node, instance, preparing, own);
      break;
    case Preparation::rewind:
      log::info("rewind to {}: {}", upstream.name, prepared.why);
      co_await rewind_or_copy(node, instance, preparing, identity, own);
      break;
  }
  copy_ends(node, preparing.ends);
}

}  // namespace pgvigil::keeper
