#include "keeper/actions/local_sql.hpp"

#include <signal.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>

#include "common/log/log.hpp"
#include "common/os/event.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "common/pg/conninfo.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

constexpr pg::Millis short_wait{5000};
constexpr pg::Millis long_wait{std::chrono::minutes{30}};

// On a primary the control file's timeline lags behind until the first checkpoint after a promotion: the name of the
// WAL segment tells. On a standby the walreceiver knows best; once it has ended, the control file lags as well, and
// received_on() tells. The startup process waits for WAL to come only when it has read all that is here
// (xlogrecovery.c, WaitForWALToBecomeAvailable()).
constexpr const char* observe_sql = R"(
  SELECT r.in_recovery,
         CASE WHEN r.in_recovery THEN GREATEST(COALESCE(pg_last_wal_receive_lsn(), '0/0'), COALESCE(pg_last_wal_replay_lsn(), '0/0'))
              ELSE pg_current_wal_flush_lsn() END AS lsn,
         CASE WHEN r.in_recovery
              THEN GREATEST((SELECT received_tli FROM pg_stat_wal_receiver),
                            (SELECT timeline_id FROM pg_control_checkpoint()),
                            (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
              ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline,
         CASE WHEN r.in_recovery THEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
              ELSE EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND application_name ~ '^pgvigil_standby_[0-9]+$') END AS streaming,
         EXISTS (SELECT FROM pg_stat_wal_receiver) AS has_receiver,
         NOT r.in_recovery OR pg_last_wal_receive_lsn() IS NOT NULL
           OR EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
                      AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')) AS settled,
         EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryPause') AS paused,
         (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
         pg_size_bytes(current_setting('wal_segment_size')) AS segment_size, current_setting('wal_block_size')::int AS page_size,
         current_setting('synchronous_standby_names') AS names,
         current_setting('primary_conninfo') AS conninfo, current_setting('primary_slot_name') AS slot
  FROM (SELECT pg_is_in_recovery() AS in_recovery) AS r)";

std::string password_of(const Node& node, const std::string& role) {
  std::ifstream file(node.passfile());
  for (std::string line; std::getline(file, line);) {
    const std::string prefix = "*:*:*:" + role + ":";
    if (line.starts_with(prefix)) return line.substr(prefix.size());
  }
  throw UserError(ExitCode::bad_state, node.passfile().string() + " has no password for " + role,
                  "run `pgvigil create postgres` again: it asks the monitor for it");
}

Lsn lsn_of(const pg::Result& result, std::string_view column) {
  const auto lsn = parse_lsn(result.text(0, column));
  if (!lsn) throw Error("PostgreSQL answered no LSN but '" + result.text(0, column) + "'");
  return *lsn;
}

}  // namespace

asio::awaitable<pg::Connection> open_local(const postgres::Instance& instance, pg::Millis timeout) {
  pg::Connection local = co_await pg::Connection::connect(instance.local_conninfo(), timeout);
  // Our own statements must neither hang on a lost standby nor show a password in the server's log.
  std::string sql =
      "SET synchronous_commit = local; SET log_statement = 'none'; SET log_min_duration_statement = -1; "
      "SET log_min_error_statement = 'panic'; SET statement_timeout = 0; SET default_transaction_read_only = off";
  if (local.server_version() >= 170000) sql += "; SET transaction_timeout = 0";
  co_await local.query(sql, {}, timeout);
  co_return local;
}

asio::awaitable<LocalFacts> observe(pg::Connection& local, pg::Millis timeout, const std::filesystem::path& pgdata,
                                    Timeline at_least) {
  const pg::Result row = co_await local.query(observe_sql, {}, timeout);
  LocalFacts facts;
  facts.in_recovery = row.boolean(0, "in_recovery");
  facts.streaming = row.boolean(0, "streaming");
  facts.has_receiver = row.boolean(0, "has_receiver");
  facts.timeline.value = static_cast<std::uint32_t>(row.integer(0, "timeline"));
  facts.lsn = lsn_of(row, "lsn");
  facts.system_identifier = row.text(0, "system_identifier");
  facts.names_in_force = row.text(0, "names");
  facts.conninfo_in_force = row.text(0, "conninfo");
  facts.slot_in_force = row.text(0, "slot");
  facts.settled = row.boolean(0, "settled");
  facts.replay_paused = row.boolean(0, "paused");
  const auto wal = pgdata / "pg_wal";
  // After a restart a standby's control file may still name an ancestor.
  const auto later = facts.in_recovery && at_least > facts.timeline ? read_history(wal, at_least) : std::nullopt;
  if (later) {
    facts.timeline = at_least;
    facts.history = *later;
  } else {
    facts.history = read_history(wal, facts.timeline).value_or(History{});
  }
  if (!facts.in_recovery) co_return facts;
  const WalSizes sizes{static_cast<std::uint64_t>(row.integer(0, "segment_size")),
                       static_cast<std::uint64_t>(row.integer(0, "page_size"))};
  const auto received = received_on(wal, {facts.timeline, facts.lsn, facts.history}, sizes);
  if (received) {
    facts.timeline = received->timeline;
    facts.history = received->history;
  }
  co_return facts;
}

asio::awaitable<void> create_roles(pg::Connection& local, const Node& node, bool anew) {
  const pg::Result existing = co_await local.query("SELECT rolname FROM pg_roles", {}, short_wait);
  std::set<std::string> roles;
  for (int row = 0; row < existing.rows(); ++row) roles.insert(existing.text(row, "rolname"));
  for (const auto& [role, rights] : {std::pair{replication_role, " LOGIN REPLICATION PASSWORD "},
                                     std::pair{probe_role, " LOGIN CONNECTION LIMIT 20 PASSWORD "}}) {
    if (roles.contains(role) && !anew) continue;
    // A verifier: statistics and samples keep the statement.
    const std::string verifier = local.scram_verifier(role, password_of(node, role));
    std::string sql = (roles.contains(role) ? "ALTER ROLE " : "CREATE ROLE ") + std::string(role) + rights +
                      pg::quote_literal(verifier);
    // What pg_rewind reads of its source.
    const std::string grant = "; GRANT EXECUTE ON FUNCTION pg_catalog.";
    for (const char* function : {"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
                                 "pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)"}) {
      if (role == replication_role) sql += grant + function + " TO " + role;
    }
    co_await local.query(sql, {}, short_wait);
  }
  std::vector<pg::Param> name;
  name.emplace_back(node.config.dbname);
  const pg::Result database = co_await local.query("SELECT FROM pg_database WHERE datname = $1", name, short_wait);
  if (database.rows() == 0) {
    const std::string sql = "CREATE DATABASE " + pg::quote_identifier(node.config.dbname);
    co_await local.query(sql, {}, long_wait);
  }
}

namespace {

// synced, failover: from PostgreSQL 17 on.
constexpr const char* slots_sql = R"(
  SELECT slot_name, active, coalesce(wal_status = 'lost', false) AS lost, restart_lsn, r.standby, r.replayed,
         slot_name ~ '^pgvigil_standby_[0-9]+$' AS ours,
         GREATEST(coalesce(CASE WHEN r.standby THEN r.replayed ELSE pg_current_wal_lsn() END - restart_lsn, 0), 0)::bigint AS held,
         coalesce((to_jsonb(s) ->> 'synced')::bool, false) AS synced, coalesce((to_jsonb(s) ->> 'failover')::bool, false) AS failover
  FROM pg_replication_slots AS s, (SELECT pg_is_in_recovery() AS standby, pg_last_wal_replay_lsn() AS replayed) AS r
  WHERE NOT temporary ORDER BY slot_name)";

struct Slot {
  std::string name;
  bool active{false};
  bool lost{false};
  bool standby{false};
  bool ours{false};
  bool synced{false};    // comes from the primary by itself
  bool failover{false};  // is to go over to the next primary
  Lsn restart;
  Lsn replayed;
  std::uintmax_t held{0};
};

std::vector<Slot> slots_in(const pg::Result& rows) {
  std::vector<Slot> slots;
  for (int row = 0; row < rows.rows(); ++row) {
    Slot slot;
    slot.name = rows.text(row, "slot_name");
    slot.active = rows.boolean(row, "active");
    slot.lost = rows.boolean(row, "lost");
    slot.standby = rows.boolean(row, "standby");
    slot.ours = rows.boolean(row, "ours");
    slot.synced = rows.boolean(row, "synced");
    slot.failover = rows.boolean(row, "failover");
    slot.restart = parse_lsn(rows.maybe(row, "restart_lsn").value_or("")).value_or(Lsn{});
    slot.replayed = parse_lsn(rows.maybe(row, "replayed").value_or("")).value_or(Lsn{});
    slot.held = static_cast<std::uintmax_t>(rows.integer(row, "held"));
    slots.push_back(std::move(slot));
  }
  return slots;
}

asio::awaitable<void> advance_slot(pg::Connection& local, const Slot& slot, Lsn floor) {
  const Lsn target = std::min(floor, slot.replayed);
  if (!slot.standby || slot.active || target.value == 0 || target <= slot.restart) co_return;
  std::vector<pg::Param> params;
  params.emplace_back(slot.name);
  params.emplace_back(to_string(target));
  co_await local.query("SELECT pg_replication_slot_advance($1, $2::pg_lsn)", params, short_wait);
}

void add_line(std::string& text, const std::string& line) {
  text += (text.empty() ? "" : "; ") + line;
}

asio::awaitable<void> drop_slot(pg::Connection& local, const Slot& slot) {
  std::vector<pg::Param> name;
  name.emplace_back(slot.name);
  co_await local.query("SELECT pg_drop_replication_slot($1)", name, short_wait);
}

// The operator's, and his to drop; a former primary holds WAL for those that nobody reads from here any more. One that
// has gone over to the next primary stands in the way of its own copy (slotsync.c, synchronize_one_slot()).
asio::awaitable<void> see_to_foreign(pg::Connection& local, const Slot& slot, bool much, SlotsSeen& seen) {
  if (slot.active || slot.synced) co_return;
  if (slot.standby && slot.failover) {
    co_await drop_slot(local, slot);
  } else if (much || (slot.standby && slot.restart.value > 0)) {
    add_line(seen.notice,
             "the slot " + slot.name + ", which nobody reads from, holds " + in_bytes(slot.held) + " of WAL");
  }
}

}  // namespace

asio::awaitable<SlotsSeen> maintain_slots(pg::Connection& local, SlotCare care) {
  std::map<std::string, const Peer*> wanted;
  for (const Peer& peer : care.peers) wanted.emplace(standby_name(peer.id), &peer);
  const pg::Result rows = co_await local.query(slots_sql, {}, short_wait);
  SlotsSeen seen;
  const std::vector<Slot> slots = slots_in(rows);
  for (const Slot& slot : slots) {
    const auto found = wanted.find(slot.name);
    const Peer* peer = found == wanted.end() ? nullptr : found->second;
    const bool much = !slot.active && care.room && care.room->is_much(slot.held);
    const std::string held = ", which does not stream, holds " + in_bytes(slot.held) + " of WAL";
    if (!slot.ours) {
      co_await see_to_foreign(local, slot, much, seen);
      continue;
    }
    const auto& members = care.names.members;
    const bool needed = peer != nullptr && std::find(members.begin(), members.end(), peer->id) != members.end();
    const bool given_up = peer != nullptr && much && care.room->runs_out() && !needed;
    if (given_up) add_line(seen.dropped, "the slot of " + peer->name + held);
    if (peer != nullptr && !slot.lost && !given_up) {
      wanted.erase(found);
      if (much && !slot.standby) add_line(seen.notice, "the slot of " + peer->name + held);
      co_await advance_slot(local, slot, care.floor);
      continue;
    }
    if (slot.active) continue;
    co_await drop_slot(local, slot);
  }
  if (!seen.notice.empty() && care.room) seen.notice += "; " + in_bytes(care.room->free) + " are free";
  for (const auto& [slot, peer] : wanted) {
    std::vector<pg::Param> name;
    name.emplace_back(slot);
    // Reserved at once: the WAL from now on is kept for it.
    co_await local.query("SELECT pg_create_physical_replication_slot($1, true)", name, short_wait);
  }
  co_return seen;
}

namespace {

// PostgreSQL takes the number after the last one whose history it finds (timeline.c, findNewestTimeLine()).
asio::awaitable<void> reserve_timelines(pg::Connection& local, const std::filesystem::path& pgdata, Timeline promised) {
  const LocalFacts facts = co_await observe(local, short_wait, pgdata, Timeline{});
  const pg::Result row = co_await local.query("SELECT pg_last_wal_replay_lsn() AS lsn", {}, short_wait);
  for (std::uint32_t number = facts.timeline.value + 1; number < promised.value; ++number) {
    char name[32];
    std::snprintf(name, sizeof name, "%08X.history", static_cast<unsigned>(number));
    const auto path = pgdata / "pg_wal" / name;
    if (std::filesystem::exists(path)) continue;
    std::string text;
    for (const HistoryEntry& entry : facts.history) {
      text += std::to_string(entry.timeline.value) + "\t" + to_string(entry.switch_point) + "\tpgvigil\n";
    }
    text +=
        std::to_string(facts.timeline.value) + "\t" + row.text(0, "lsn") + "\tpgvigil: a promotion that nobody saw\n";
    os::write_file_atomic(path, text, 0600);
  }
}

// What the startup process waits for in a recovery conflict (standby.c): transactions that may see what is to go, a
// lock, a buffer. It promotes when it has replayed everything, after max_standby_streaming_delay, which may be for
// ever.
constexpr const char* readers_in_the_way_sql = R"(
  SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) AS ended FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
    AND usename <> $1 AND NOT (usename = current_user AND application_name = 'pgvigil')
    AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
                AND (wait_event LIKE 'RecoveryConflict%' OR wait_event_type IN ('Lock', 'BufferPin'))))";

asio::awaitable<void> end_readers_in_the_way(pg::Connection& local) {
  std::vector<pg::Param> not_those_of;
  not_those_of.emplace_back(std::string(probe_role));
  const pg::Result row = co_await local.query(readers_in_the_way_sql, not_those_of, short_wait);
  const auto ended = row.integer(0, "ended");
  if (ended > 0) log::warn("{} sessions with queries that held up the replay are ended: writes wait for it", ended);
}

}  // namespace

asio::awaitable<void> promote(pg::Connection& local, const std::filesystem::path& pgdata, Timeline promised,
                              std::function<bool()> ask) {
  const pg::Result before = co_await local.query("SELECT pg_is_in_recovery() AS standby", {}, short_wait);
  if (before.boolean(0, "standby")) co_await reserve_timelines(local, pgdata, promised);
  bool asked = false;
  for (int round = 0;; ++round) {
    const pg::Result state = co_await local.query("SELECT pg_is_in_recovery() AS standby", {}, short_wait);
    if (!state.boolean(0, "standby")) co_return;
    if (!asked) {
      if (!ask()) throw Error("the promotion is not wanted any more");
      asked = true;
      co_await local.query("SELECT pg_promote(wait => false)", {}, short_wait);
    }
    if (round % 100 == 99) co_await end_readers_in_the_way(local);
    co_await os::sleep_for(std::chrono::milliseconds{10});
  }
}

asio::awaitable<void> end_receiver(pg::Connection& local) {
  const pg::Result rows = co_await local.query("SELECT pid FROM pg_stat_wal_receiver", {}, short_wait);
  if (rows.rows() == 0) co_return;
  const auto receiver = os::PidFd::open(static_cast<pid_t>(rows.integer(0, "pid")));
  if (!receiver) co_return;
  log::info("the walreceiver is ended, for the startup process does not get to it");
  receiver->signal(SIGTERM);
}

asio::awaitable<std::string> configuration_error(pg::Connection& local) {
  // What needs a restart or has a bad value is an error too, but hinders nothing else (guc-file.c,
  // ProcessConfigFileInternal()).
  const pg::Result row = co_await local.query(
      "SELECT format('%s, line %s: %s', sourcefile, sourceline, error) AS error FROM pg_file_settings "
      "WHERE error IS NOT NULL AND error <> 'setting could not be applied' ORDER BY seqno LIMIT 1",
      {}, short_wait);
  co_return row.rows() == 0 ? std::string() : row.text(0, "error");
}

asio::awaitable<void> checkpoint(pg::Connection& local) {
  co_await local.query("CHECKPOINT", {}, long_wait);
}

// pg_stat_wal_receiver shows a walreceiver when it has its session (ready_to_display), pg_stat_activity when it has
// begun, its title even before that. The startup process reads the new settings before it asks for another.
asio::awaitable<bool> receives_no_more(pg::Connection& local, const postgres::Instance& instance) {
  const pg::Result rows = co_await local.query(
      "SELECT pid, backend_type = 'walreceiver' AS receives, current_setting('primary_conninfo') = '' AS cut "
      "FROM pg_stat_activity",
      {}, short_wait);
  std::vector<pid_t> others;
  for (int row = 0; row < rows.rows(); ++row) {
    if (!rows.boolean(row, "cut") || rows.text(row, "receives") == "t") co_return false;
    others.push_back(static_cast<pid_t>(rows.integer(row, "pid")));
  }
  co_return !instance.has_walreceiver(others);
}

namespace {

std::string array_of(const SyncNames& names) {
  std::string members;
  for (const NodeId member : names.members) members += (members.empty() ? "" : ",") + standby_name(member);
  return "{" + members + "}";
}

}  // namespace

asio::awaitable<int> members_holding(pg::Connection& local, const SyncNames& names, Lsn lsn) {
  std::vector<pg::Param> params;
  params.emplace_back(array_of(names));
  params.emplace_back(to_string(lsn));
  const pg::Result count = co_await local.query(
      "SELECT CASE WHEN bool_or((application_name = ANY ($1::text[])) <> (sync_state = 'quorum')) THEN 0 "
      "ELSE count(DISTINCT application_name) FILTER (WHERE application_name = ANY ($1::text[]) AND flush_lsn >= "
      "$2::pg_lsn) "
      "END AS n FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')",
      params, short_wait);
  co_return static_cast<int>(count.integer(0, "n"));
}

asio::awaitable<std::vector<pid_t>> expendable_walsenders(pg::Connection& local, const SyncNames& names) {
  std::vector<pg::Param> members;
  members.emplace_back(array_of(names));
  const pg::Result rows = co_await local.query(
      "SELECT pid FROM pg_stat_replication WHERE NOT (application_name ~ '^pgvigil_standby_[0-9]+$' "
      "AND (state = 'streaming' OR application_name = ANY ($1::text[])))",
      members, short_wait);
  std::vector<pid_t> pids;
  for (int row = 0; row < rows.rows(); ++row) pids.push_back(static_cast<pid_t>(rows.integer(row, "pid")));
  co_return pids;
}

asio::awaitable<void> restart_walsenders(pg::Connection& local) {
  co_await local.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name ~ '^pgvigil_standby_[0-9]+$'",
      {}, short_wait);
}

asio::awaitable<Lsn> insert_position(pg::Connection& local) {
  const pg::Result row = co_await local.query("SELECT pg_current_wal_insert_lsn() AS lsn", {}, short_wait);
  co_return lsn_of(row, "lsn");
}

}  // namespace pgvigil::keeper
