// Fences a primary that is cut off; looks at the upstream; holds the settings; confirms that the names are in force and
// satisfied.
#include <algorithm>
#include <utility>

#include "common/log/log.hpp"
#include "common/model/pace.hpp"
#include "keeper/fsm/fence.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

constexpr Millis patience_with_reload{1000};

}  // namespace

asio::awaitable<void> Keeper::fence() {
  while (!finished_) {
    const FencePace pace = fence_pace(core_.lease());
    co_await os::sleep_for(pace.look);
    const auto why = core_.must_fence(now());
    if (!why) continue;
    log::error("PostgreSQL is stopped: {}", *why);
    core_.fenced(*why, now());
    log_reason();
    std::string failure;
    try {
      // Its clients can't be served any more, and a fast stop would wait for standbys that are not there.
      co_await instance_.stop(postgres::StopMode::immediate, pace.grace);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::error("could not stop PostgreSQL, trying again: {}", failure);
  }
}

// While it has stopped because nobody was there: is somebody?
asio::awaitable<void> Keeper::find_standbys() {
  while (!finished_) {
    co_await os::sleep_for(pg::Millis{1000});
    const std::vector<Peer> peers = core_.state().peers;
    for (const Peer& peer : peers) {
      if (!core_.asks_for_standbys(now())) break;
      const bool back = co_await standby_is_back(peer);
      if (!back) continue;
      log::info("{} answers: PostgreSQL is started, for its standbys to come back", peer.name);
      reconcile_now_.set();
    }
  }
}

asio::awaitable<bool> Keeper::standby_is_back(const Peer& peer) {
  const std::vector<NodeId>& members = core_.goal().names.members;
  if (std::find(members.begin(), members.end(), peer.id) == members.end()) co_return false;
  std::string failure;
  try {
    const UpstreamIdentity seen = co_await identify(node_, peer);
    if (seen.system_identifier != core_.state().system_identifier) failure = "of another system";
    if (failure.empty() && core_.found_standby(seen.position.timeline, now())) co_return true;
    if (failure.empty()) failure = "on timeline " + std::to_string(seen.position.timeline.value);
  } catch (const std::exception& error) {
    failure = error.what();
  }
  log::debug("{} is no standby of this node: {}", peer.name, failure);
  co_return false;
}

asio::awaitable<void> Keeper::see_upstream() {
  std::optional<pg::Connection> session;
  std::string session_by;
  while (!finished_) {
    const Pace pace = pace_of(heartbeat_);
    UpstreamSight sight = UpstreamSight::unknown;
    const Peer* peer = runs_as_standby(core_.state().reported) ? core_.upstream() : nullptr;
    const std::string conninfo = peer == nullptr ? "" : peer_conninfo(node_, *peer, probe_role, "postgres");
    if (session_by != conninfo) session.reset();
    session_by = conninfo;
    if (peer != nullptr) {
      const bool first = !session;
      try {
        if (!session) session.emplace(co_await pg::Connection::connect(conninfo, pace.patience));
        co_await session->query("SELECT 1", {}, pace.patience);
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
    co_await os::sleep_for(pace.period / 2);
  }
}

asio::awaitable<void> Keeper::confirm_names() {
  while (!finished_) {
    co_await names_now_.wait(pg::Millis{core_.names_are_due() ? 100 : 1000});
    if (finished_) co_return;
    std::string failure;
    try {
      co_await hold_settings();
      co_await confirm_names_once();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::debug("names not confirmed yet: {}", failure);
  }
}

// A standby that goes by another name, or none, is not the one for which its primary's commits wait.
bool Keeper::upstream_differs() const {
  const bool settled = core_.state().reported == NodeState::secondary && core_.converged() && core_.pg_running() &&
                       core_.pg_answering() && core_.facts().in_recovery;
  const auto written = [this](const char* name, const std::string& in_force) {
    const auto found = written_.find(name);
    return found == written_.end() || found->second == in_force;
  };
  return settled && !(written("primary_conninfo", core_.facts().conninfo_in_force) &&
                      written("primary_slot_name", core_.facts().slot_in_force));
}

// Names or an upstream that stay out of force: somebody has set others (ALTER SYSTEM, a line behind ours), or
// PostgreSQL cannot read its files. Without them nobody knows which standbys hold the commits.
asio::awaitable<void> Keeper::hold_settings() {
  if (!core_.names_differ() && !names_differ_for_new_sessions_ && !upstream_differs()) {
    settings_differ_since_.reset();
    if (std::exchange(settings_unreadable_, false)) core_.disturb();  // its reason is not true any more
    co_return;
  }
  if (!settings_differ_since_) settings_differ_since_ = now();
  if (now() - *settings_differ_since_ < patience_with_reload) co_return;
  settings_differ_since_ = now();
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  const std::string error = co_await configuration_error(local);
  if (error.empty()) {
    log::warn("other settings are in force than were written: written again");
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
    for (int second = 0; second < 5; ++second) {
      co_await os::sleep_for(pg::Millis{1000});
      if (disk_.wal() && disk_.wal()->runs_out()) break;
    }
    const NodeState state = core_.state().reported;
    // A vote may be the source of a favourite that lacks WAL, and a standby that has just come has not made its slot
    // yet.
    const bool keeps = takes_writes(state) || state == NodeState::secondary || state == NodeState::report_lsn;
    const bool due = core_.converged() && core_.pg_running() && core_.pg_answering() && !disk_.hung() && keeps;
    if (!due) continue;
    std::string failure;
    try {
      co_await keep_slots_once();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) slots_failed(failure);
  }
}

// Seen in `show state` until they have been seen to again; logged once.
void Keeper::slots_failed(const std::string& why) {
  const std::string notice = "replication slots of the peers: " + why;
  if (std::exchange(slots_notice_, notice) != notice) log::warn("{}", notice);
}

asio::awaitable<void> Keeper::keep_slots_once() {
  pg::Connection local = co_await open_local(instance_, pg::Millis{2000});
  SlotCare care;
  care.peers = core_.state().peers;
  care.names = core_.goal().names;
  care.floor = core_.goal().wal_floor;
  care.room = disk_.wal();
  SlotsSeen seen = co_await maintain_slots(local, std::move(care));
  if (slots_notice_.empty() && !seen.notice.empty()) log::warn("{}", seen.notice);
  slots_notice_ = std::move(seen.notice);
  if (!seen.dropped.empty()) {
    log::warn("room runs out: {}; it is given up", seen.dropped);
    co_await checkpoint(local);  // removes what nobody holds any more
  }
  if (core_.could_arm()) {
    co_await checkpoint(local);
    if (core_.could_arm()) core_.armed();  // the names may have been taken out of the settings meanwhile
  }
}

}  // namespace pgvigil::keeper
