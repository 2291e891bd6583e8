// The keeper of one node: a few coroutines on one thread around one shared picture.
//   monitor link   reports, receives goals        (monitor_link.cpp)
//   watch          sees what PostgreSQL does      (watch.cpp)
//   reconcile      carries goals out, step by step (reconcile.cpp)
//   guard          fences a primary that is cut off, looks at the upstream, confirms names (guard.cpp)
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "common/os/event.hpp"
#include "keeper/actions/local_sql.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/actions/upstream.hpp"
#include "keeper/fsm/plan.hpp"
#include "keeper/service/state_file.hpp"

namespace pgvigil::keeper {

using Clock = std::chrono::steady_clock;

class Keeper {
 public:
  Keeper(asio::io_context& context, config::Config config, KeeperState state);

  // Runs until stop() or the node has been dropped. Returns the exit code.
  asio::awaitable<ExitCode> run();
  // SIGTERM fast, SIGINT fast, SIGQUIT immediate: PostgreSQL is stopped, then run() returns.
  void stop(postgres::StopMode mode);
  // SIGHUP: reads the configuration file again.
  void reload(config::Config config);

 private:
  asio::awaitable<void> monitor_link();
  asio::awaitable<void> monitor_session();
  asio::awaitable<void> watch();
  asio::awaitable<void> observe_once(const os::PidFd& postmaster);
  asio::awaitable<void> reconcile();
  asio::awaitable<void> reconcile_once();
  asio::awaitable<void> fence();
  asio::awaitable<void> see_upstream();
  asio::awaitable<void> confirm_names();
  asio::awaitable<void> confirm_names_once();
  asio::awaitable<void> background_checkpoint();

  // Steps (steps.cpp).
  asio::awaitable<void> carry_out(Step step);
  asio::awaitable<void> create_cluster();
  asio::awaitable<void> configure_primary();
  asio::awaitable<void> configure_standby(bool with_upstream);
  asio::awaitable<void> start();
  asio::awaitable<void> stop_postgres(postgres::StopMode mode);
  asio::awaitable<void> roles_and_slots();
  asio::awaitable<void> cut_off();
  asio::awaitable<void> refresh_facts();
  void write_settings(const postgres::Settings& settings);

  void accept(const Goal& goal);
  void save() { save_state(node_.config.state_directory, state_); }
  void say(std::string reason);  // the reason for not being at the goal; logged once
  Report make_report() const;
  const Peer* upstream() const;
  bool lease_allows_start() const;
  bool asynchronous() const;

  asio::io_context& context_;
  Node node_;
  postgres::Instance instance_;
  KeeperState state_;

  // What PostgreSQL was last seen to do.
  bool pg_running_{false};
  Clock::time_point pg_answered_{};  // the last answered query
  bool pg_answering_{false};
  LocalFacts facts_;
  std::int64_t names_version_{0};  // of the names in force and satisfied
  std::optional<Lsn> final_lsn_;   // end of WAL of a cleanly stopped PostgreSQL
  std::string reason_;
  UpstreamSight upstream_sight_{UpstreamSight::unknown};

  // Contact, monotonic.
  Clock::time_point started_{Clock::now()};
  std::optional<Clock::time_point> monitor_contact_;  // when the last answered report was sent
  Clock::time_point standby_contact_{Clock::now()};
  bool fenced_{false};
  bool pg_was_running_at_start_{false};

  os::Event report_now_;
  os::Event reconcile_now_;
  os::Event names_now_;
  os::Event watch_now_;  // an order may make the next LSN urgent
  bool dirty_{true};     // something besides the goal's state has changed: run the plan that keeps us there
  std::optional<postgres::StopMode> stopping_;
  bool finished_{false};
  ExitCode exit_code_{ExitCode::ok};
};

}  // namespace pgvigil::keeper
