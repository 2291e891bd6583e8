#include "keeper/service/keeper.hpp"

#include <algorithm>

#include "common/log/log.hpp"
#include "common/os/race.hpp"

namespace pgvigil::keeper {

Keeper::Keeper(asio::io_context& context, config::Config config, KeeperState state)
    : context_(context),
      node_{std::move(config), state.node},
      instance_(instance_settings(node_.config)),
      state_(std::move(state)),
      report_now_(context.get_executor()),
      reconcile_now_(context.get_executor()),
      names_now_(context.get_executor()),
      watch_now_(context.get_executor()) {
  pg_was_running_at_start_ = instance_.postmaster().has_value();
  pg_running_ = pg_was_running_at_start_;
}

asio::awaitable<ExitCode> Keeper::run() {
  log::info("keeper of node {} ({}) starts in state {}, goal {}, term {}", node_.id.value, state_.name,
            to_string(state_.reported), to_string(state_.goal.state), state_.term.value);
  reconcile_now_.set();
  // reconcile() alone ends by itself; the others are then cancelled.
  co_await os::race(reconcile(), monitor_link(), watch(), fence(), see_upstream(), confirm_names());
  co_return exit_code_;
}

void Keeper::stop(postgres::StopMode mode) {
  stopping_ = mode;
  reconcile_now_.set();
}

void Keeper::reload(config::Config config) {
  node_.config = std::move(config);
  instance_ = postgres::Instance(instance_settings(node_.config));
  dirty_ = true;
  reconcile_now_.set();
}

void Keeper::accept(const Goal& goal) {
  const Goal& held = state_.goal;
  if (goal.term < state_.term || (goal.term == state_.term && goal.seq < held.seq)) {
    log::warn("an order of term {} is older than the promised term {}: refused", goal.term.value, state_.term.value);
    return;
  }
  const bool moved = goal.state != held.state || goal.term != held.term || goal.seq != held.seq;
  const bool details = goal.names != held.names || goal.names_version != held.names_version ||
                       goal.upstream != held.upstream || goal.lease_seconds != held.lease_seconds;
  if (!moved && !details) return;
  if (goal.state != held.state) {
    log::info("goal {} -> {} (term {})", to_string(held.state), to_string(goal.state), goal.term.value);
  }
  state_.goal = goal;
  state_.term = goal.term;
  save();  // the promise is durable before anything is done or answered
  if (details) dirty_ = true;
  watch_now_.set();
  reconcile_now_.set();
}

void Keeper::say(std::string reason) {
  if (reason == reason_) return;
  reason_ = std::move(reason);
  if (!reason_.empty()) log::warn("not at the goal {} yet: {}", to_string(state_.goal.state), reason_);
  report_now_.set();
}

Report Keeper::make_report() const {
  Report report;
  report.node = node_.id;
  report.state = state_.reported;
  report.term = state_.term;
  report.goal_seq = state_.reported_seq;
  report.pg_running = pg_running_;
  report.pg_responding = pg_running_ && pg_answering_ && Clock::now() - pg_answered_ < std::chrono::seconds{2};
  report.timeline = std::max(state_.timeline, facts_.timeline);
  report.lsn = pg_running_ ? facts_.lsn : final_lsn_.value_or(Lsn{});
  report.names_version = names_version_;
  report.upstream = upstream_sight_;
  report.streaming = pg_running_ && facts_.streaming;
  report.reason = reason_;
  report.system_identifier = facts_.system_identifier;
  return report;
}

const Peer* Keeper::upstream() const {
  if (!state_.goal.upstream) return nullptr;
  const auto found = std::find_if(state_.peers.begin(), state_.peers.end(),
                                  [&](const Peer& peer) { return peer.id == *state_.goal.upstream; });
  return found == state_.peers.end() ? nullptr : &*found;
}

bool Keeper::asynchronous() const {
  return state_.goal.names.asynchronous() || names_version_ != state_.goal.names_version;
}

bool Keeper::lease_allows_start() const {
  if (state_.goal.state == NodeState::single) return true;
  const auto lease = std::chrono::seconds{state_.goal.lease_seconds};
  const auto now = Clock::now();
  if (monitor_contact_ && now - *monitor_contact_ < lease) return true;
  // Without the monitor's word only the fence by quorum makes it safe to write; give the monitor a chance to say so
  // first.
  return !state_.goal.names.asynchronous() && now - started_ >= lease;
}

}  // namespace pgvigil::keeper
