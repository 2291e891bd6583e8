#include "keeper/actions/rewind.hpp"

#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "common/log/log.hpp"
#include "common/os/event.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "keeper/actions/archive.hpp"
#include "keeper/actions/stopped.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

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

asio::awaitable<os::ProcessResult> pg_rewind(const Node& node, postgres::Instance& instance, const Peer& upstream,
                                             Timeline timeline, Progress progress) {
  const std::string source = peer_conninfo(node, upstream, replication_role, "postgres");
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
  // Its own WAL back to the last common checkpoint may be there only. (Up to PostgreSQL 14 it looks for the command in
  // PGDATA.)
  const std::string command = co_await restore_command(instance);
  if (!command.empty() && (!elsewhere || has_option)) argv.push_back("--restore-target-wal");
  progress("rewind to the history of " + upstream.name);
  const postgres::ControlData control = co_await instance.control_data();
  if (!control.clean_shutdown()) {
    // Its recovery is finished by a single-user server, which refuses to be a standby. One that ended in the middle of
    // a promotion has the sign still; configure_standby gives it again. (On one and the same timeline nothing is
    // rewound, and what a recovery adds would stay.)
    if (control.timeline < timeline) postgres::set_standby_signal(instance.settings().pgdata, false);
    if (elsewhere && !has_option) co_await finish_recovery(instance);
  }
  os::ProcessResult result = co_await os::run(std::move(argv), options);
  // It sees no parting of the ways where we have seen one; but a recovery has written records here.
  if (result.ok() && !control.clean_shutdown() && result.output.find("no rewind required") != std::string::npos)
    result.exit_code = 1;
  co_return result;
}

// The recovery that begins here, at the last common checkpoint, finds all of its WAL, in the archive too, or can have
// it sent. (Up to PostgreSQL 13 and the first releases of 14 to 17 pg_rewind removes what its source does not have.)
asio::awaitable<bool> has_all(const Node& node, const postgres::Instance& instance, const Peer& upstream,
                              const UpstreamIdentity& identity) {
  const Stopped stopped = co_await read_stopped(instance);
  const Lsn end = recovered_up_to(node.pgdata() / "pg_wal", identity.position, stopped.recovery_begins);
  const std::uint64_t segment_size = stopped.control.segment_size;
  if (co_await can_send(node, upstream, identity, end, segment_size)) co_return true;
  co_return co_await in_archive(instance, identity.position, end, segment_size);
}

}  // namespace

asio::awaitable<void> wait_for_checkpoint(const Node& node, const Peer& upstream, Timeline timeline) {
  const pg::Result row = co_await ask(node, upstream, "SELECT timeline_id FROM pg_control_checkpoint()");
  if (row.integer(0, "timeline_id") < static_cast<std::int64_t>(timeline.value)) {
    throw Error(upstream.name + " has not finished its first checkpoint on timeline " + std::to_string(timeline.value) +
                " yet");
  }
}

asio::awaitable<bool> has_free_session(const Node& node, const Peer& upstream, Progress progress) {
  const std::string conninfo = peer_conninfo(node, upstream, replication_role, "postgres");
  for (int attempt = 0; attempt < 20; ++attempt) {
    std::optional<std::string> rejected;
    try {
      co_await pg::Connection::connect(conninfo, upstream_wait);
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

asio::awaitable<bool> rewind(const Node& node, postgres::Instance& instance, const Peer& upstream,
                             const UpstreamIdentity& identity, Progress progress) {
  const KeptFile config(instance.config_file());
  const KeptFile hba(instance.hba_file());
  const os::ProcessResult result = co_await pg_rewind(node, instance, upstream, identity.position.timeline, progress);
  if (!result.ok()) {
    log::warn("pg_rewind from {} failed, a base backup follows: {}", upstream.name, result.output);
    co_return false;
  }
  config.put_back();
  hba.put_back();
  if (!co_await has_all(node, instance, upstream, identity)) {
    log::warn("{} has removed WAL that the rewound PGDATA needs, a base backup follows", upstream.name);
    co_return false;
  }
  log::info("rewound to the history of {}: {}", upstream.name, result.last_line());
  co_return true;
}

}  // namespace pgvigil::keeper
