// Fences a primary that is cut off; looks at the upstream; confirms that the names are in force and satisfied.
#include <utility>

#include "common/log/log.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

constexpr Millis patience_with_reload{1000};

}  // namespace

asio::awaitable<void> Keeper::fence() {
  while (!finished_) {
    co_await os::sleep_for(pg::Millis{200});
    const auto why = core_.must_fence(now());
    if (!why) continue;
    log::error("PostgreSQL is stopped: {}", *why);
    core_.fenced(*why);
    log_reason();
    std::string failure;
    try {
      // Its clients can't be served any more, and a fast stop would wait for standbys that are not there.
      co_await instance_.stop(postgres::StopMode::immediate, std::chrono::seconds{5});
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::error("could not stop PostgreSQL, trying again: {}", failure);
  }
}

asio::awaitable<void> Keeper::see_upstream() {
  std::optional<pg::Connection> session;
  std::string session_by;
  while (!finished_) {
    UpstreamSight sight = UpstreamSight::unknown;
    const Peer* peer = runs_as_standby(core_.state().reported) ? core_.upstream() : nullptr;
    const std::string conninfo = peer == nullptr ? "" : peer_conninfo(node_, *peer, probe_role, "postgres");
    if (session_by != conninfo) session.reset();
    session_by = conninfo;
    if (peer != nullptr) {
      const bool first = !session;
      try {
        if (!session) session.emplace(co_await pg::Connection::connect(conninfo, pg::Millis{1000}));
        co_await session->query("SELECT 1", {}, pg::Millis{1000});
        sight = UpstreamSight::ok;
      } catch (const pg::ConnectionError& error) {
        sight = error.kind == pg::ConnectionError::Kind::refused ? UpstreamSight::refused : UpstreamSight::silent;
        session.reset();
      } catch (const std::exception&) {
        session.reset();
        sight = UpstreamSight::silent;
      }
      if (sight != UpstreamSight::ok && !first && !finished_) continue;  // a broken session: ask again before saying so
    }
    if (core_.saw_upstream(sight)) report_now_.set();
    co_await os::sleep_for(pg::Millis{500});
  }
}

asio::awaitable<void> Keeper::confirm_names() {
  while (!finished_) {
    co_await names_now_.wait(pg::Millis{core_.names_to_confirm() ? 100 : 1000});
    if (finished_) co_return;
    std::string failure;
    try {
      co_await hold_names();
      co_await confirm_names_once();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::debug("names not confirmed yet: {}", failure);
  }
}

// Names that stay out of force: somebody has set others (ALTER SYSTEM, a line behind ours), or PostgreSQL cannot read
// its files. Without them nobody knows which standbys hold the commits.
asio::awaitable<void> Keeper::hold_names() {
  if (!core_.names_differ() && !names_differ_for_new_sessions_) {
    names_differ_since_.reset();
    if (std::exchange(settings_unreadable_, false)) core_.disturb();  // its reason is not true any more
    co_return;
  }
  if (!names_differ_since_) names_differ_since_ = now();
  if (now() - *names_differ_since_ < patience_with_reload) co_return;
  names_differ_since_ = now();
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const std::string error = co_await configuration_error(local);
  if (error.empty()) {
    log::warn("other names are in force than were written; written again");
    core_.disturb();
    reconcile_now_.set();
  } else {
    core_.progress("new settings are not in force, for PostgreSQL cannot read its configuration: " + error);
    settings_unreadable_ = true;
    log_reason();
  }
  instance_.reload();
}

// In force: a new session sees them, the walsenders count by them, and the checkpointer, which tells all backends
// whether to wait at all, has read them (it takes a CHECKPOINT only after its configuration). Satisfied: enough members
// hold everything up to now, so that from here on an election among them finds every commit, also those acknowledged
// under the lists before.
asio::awaitable<void> Keeper::confirm_names_once() {
  const auto wanted = core_.names_to_confirm();
  names_differ_for_new_sessions_ = false;
  if (!wanted) co_return;
  const SyncNames names = wanted->names;
  const auto version = wanted->version;
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const LocalFacts facts = co_await look(local);
  if (facts.in_recovery) co_return;
  // Each process reads the files for itself, at a moment of its own: an old session may have seen what the postmaster
  // has not.
  names_differ_for_new_sessions_ = facts.names_in_force != to_guc(names);
  if (names_differ_for_new_sessions_) co_return;
  if (!names.asynchronous()) {
    if (wanted->stricter && strict_version_ != version) {
      co_await restart_walsenders(local);
      strict_version_ = version;
      co_return;  // they come back within wal_retrieve_retry_interval
    }
    const int ready = co_await members_holding(local, names, Lsn{});
    if (ready < names.required) co_return;
    co_await checkpoint(local);
    const Lsn position = co_await insert_position(local);
    bool satisfied = false;
    for (int i = 0; i < 100 && !satisfied && core_.goal().names_version == version; ++i) {
      const int holding = co_await members_holding(local, names, position);
      satisfied = holding >= names.required;
      if (!satisfied) co_await os::sleep_for(pg::Millis{20});
    }
    if (!satisfied) co_return;
  }
  if (core_.names_confirmed(version)) report_now_.set();
}

// The slots of the peers, here and on standbys: whoever takes over has kept the WAL that the others need.
asio::awaitable<void> Keeper::keep_slots() {
  while (!finished_) {
    co_await os::sleep_for(pg::Millis{5000});
    const NodeState state = core_.state().reported;
    const bool due = core_.converged() && core_.pg_running() && core_.pg_answering() &&
                     (takes_writes(state) || state == NodeState::secondary);
    if (!due) continue;
    std::string failure;
    try {
      pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
      const std::vector<Peer> peers = core_.state().peers;
      co_await maintain_slots(local, peers, core_.goal().wal_floor);
      if (core_.could_arm()) {
        co_await checkpoint(local);
        core_.armed();
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::warn("replication slots of the peers: {}", failure);
  }
}

}  // namespace pgvigil::keeper
