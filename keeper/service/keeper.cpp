#include "keeper/service/keeper.hpp"

#include "common/log/log.hpp"
#include "common/os/race.hpp"

namespace pgvigil::keeper {

Keeper::Keeper(asio::io_context& context, config::Config config, KeeperState state)
    : context_(context),
      node_{std::move(config), state.node},
      instance_(instance_settings(node_.config)),
      core_(std::move(state), instance_.postmaster().has_value(), now()),
      state_file_(node_.config.state_directory),
      certificates_(context.get_executor()),
      logged_goal_(core_.goal().state),
      report_now_(context.get_executor()),
      reconcile_now_(context.get_executor()),
      names_now_(context.get_executor()),
      watch_now_(context.get_executor()),
      depart_now_(context.get_executor()),
      promoted_now_(context.get_executor()) {}

asio::awaitable<ExitCode> Keeper::run() {
  log::info("keeper of node {} ({}) starts in state {}, goal {}, term {}", node_.id.value, core_.state().name,
            to_string(core_.state().reported), to_string(core_.goal().state), core_.state().term.value);
  certificates_.look_at(node_.config);
  reconcile_now_.set();
  // reconcile() ends by itself, await_departure() when PostgreSQL is to be let go; the others are then cancelled.
  co_await os::race(reconcile(), await_departure(), monitor_link(), watch(), fence(), find_standbys(), see_upstream(),
                    confirm_names(), keep_slots(), watch_disk(), see_first_write(), prove_tls(), certificates_.run());
  co_return exit_code_;
}

void Keeper::reload(config::Config config) {
  node_.config = std::move(config);
  instance_ = postgres::Instance(instance_settings(node_.config));
  if (instance_.postmaster()) instance_.reload();  // perhaps there is another certificate in the same file
  certificates_.look_at(node_.config);
  core_.disturb();
  reconcile_now_.set();
  report_now_.set();  // perhaps to another monitor
}

void Keeper::keep(Core::Save save) {
  if (save == Core::Save::no) return;
  state_file_.changed();
  holds_state();
}

bool Keeper::holds_state() {
  const std::string before = state_file_.failure();
  const bool holds = state_file_.holds(core_.state());
  if (!holds && state_file_.failure() != before) log::error("{}", state_file_.failure());
  if (holds && !before.empty()) log::info("the state file is written again");
  return holds;
}

std::string Keeper::notices() const {
  std::string text;
  for (const std::string& notice : {disk_.notice(), slots_notice_, replay_notice_, certificates_.notice()}) {
    if (!notice.empty()) text += (text.empty() ? "" : "; ") + notice;
  }
  return text;
}

// Each reason once.
void Keeper::log_reason() {
  if (core_.reason() == logged_reason_) return;
  logged_reason_ = core_.reason();
  if (logged_reason_.empty()) return;
  log::warn("not at the goal {} yet: {}", to_string(core_.goal().state), logged_reason_);
  report_now_.set();
}

}  // namespace pgvigil::keeper
