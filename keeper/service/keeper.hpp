// The keeper of one node: a few coroutines on one thread around one mind (keeper/fsm/core.hpp), which decides.
//   monitor link   reports, receives goals        (monitor_link.cpp)
//   watch          sees what PostgreSQL does      (watch.cpp)
//   reconcile      carries goals out, step by step (reconcile.cpp)
//   departure      lets go, or hands over and stops (departure.cpp)
//   tls            proves that sessions with this node can be encrypted, and tells the others (tls.cpp)
//   guard          fences a primary that is cut off until a standby is back, looks at the upstream, confirms names
//                  (guard.cpp)
//   moments        sees the first write after a takeover (moments.cpp)
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "common/monitor_api/monitor_api.hpp"
#include "common/os/event.hpp"
#include "common/os/thread.hpp"
#include "common/postgres/certificate_watch.hpp"
#include "keeper/actions/copy_marker.hpp"
#include "keeper/actions/local_sql.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/actions/standby_limits.hpp"
#include "keeper/actions/stream_patience.hpp"
#include "keeper/actions/upstream.hpp"
#include "keeper/actions/upstream_sql.hpp"
#include "keeper/fsm/core.hpp"
#include "keeper/moments/recorder.hpp"
#include "keeper/service/disk.hpp"
#include "keeper/service/monitor_access.hpp"
#include "keeper/service/state_file.hpp"

namespace pgvigil::keeper {

// Now, as Core wants it: a lease goes on while the host is suspended.
inline Millis now() {
  timespec boot{};
  ::clock_gettime(CLOCK_BOOTTIME, &boot);
  return std::chrono::duration_cast<Millis>(std::chrono::seconds{boot.tv_sec} + std::chrono::nanoseconds{boot.tv_nsec});
}

class Keeper {
 public:
  Keeper(asio::io_context& context, config::Config config, KeeperState state);

  // Runs until stop() or the node has been dropped. Returns the exit code.
  asio::awaitable<ExitCode> run();
  // SIGINT fast, SIGQUIT immediate: PostgreSQL is stopped, then run() returns.
  void stop(postgres::StopMode mode);
  // SIGTERM: the same, fast; a primary hands over to another node first, when one is ready and it does not take long.
  void leave();
  // SIGUSR2: run() returns, PostgreSQL goes on. The next keeper adopts it.
  void let_go();
  bool has_let_go() const { return letting_go_; }
  std::string describe() const;  // one line for the service manager
  // SIGHUP: reads the configuration file again.
  void reload(config::Config config);

 private:
  asio::awaitable<void> monitor_link();
  asio::awaitable<void> monitor_session(pg::Millis answers);
  std::optional<Report> report_to_tell(Millis sent);
  asio::awaitable<monitor_api::Answer> answer_to(pg::Connection& monitor, monitor_api::Reporter& reporter,
                                                 const Report& report);
  asio::awaitable<void> answered(pg::Connection& monitor, Goal goal, pg::Millis sent);
  asio::awaitable<void> tell(pg::Connection& monitor);
  std::string wanted_sslmode() const;
  asio::awaitable<void> prove_tls();
  asio::awaitable<void> reach_itself(const std::string& sslmode);
  asio::awaitable<void> say_sslmode(pg::Connection& monitor, std::string& said);
  asio::awaitable<void> watch();
  asio::awaitable<void> observe_once(const os::PidFd& postmaster);
  asio::awaitable<void> end_stranger(const os::PidFd& postmaster);
  asio::awaitable<void> see_replay(pg::Connection& local, bool paused);
  asio::awaitable<void> reconcile();
  asio::awaitable<void> settle();
  asio::awaitable<void> fence();
  asio::awaitable<void> find_standbys();
  asio::awaitable<bool> standby_is_back(const Peer& peer);
  asio::awaitable<void> see_upstream();
  asio::awaitable<void> confirm_names();
  asio::awaitable<void> confirm_names_once();
  asio::awaitable<void> hold_settings();
  bool upstream_differs() const;
  asio::awaitable<void> background_checkpoint();
  asio::awaitable<void> keep_slots();
  asio::awaitable<void> keep_slots_once();
  void slots_failed(const std::string& why);
  asio::awaitable<void> watch_disk();
  asio::awaitable<void> see_first_write();
  asio::awaitable<void> watch_for_write();
  asio::awaitable<void> tell_moments(pg::Connection& monitor);
  asio::awaitable<void> await_departure();
  asio::awaitable<void> hand_over();
  asio::awaitable<void> ask_to_step_down();

  // Steps (steps.cpp).
  asio::awaitable<void> carry_out(Step step);
  asio::awaitable<bool> unless_superseded(asio::awaitable<void> work, const bool* irrevocable = nullptr);
  asio::awaitable<void> checkpoint_unless_superseded();
  asio::awaitable<void> promote();
  asio::awaitable<void> check_identity();
  asio::awaitable<void> create_cluster();
  asio::awaitable<void> configure_primary();
  asio::awaitable<void> configure_standby(bool with_upstream);
  asio::awaitable<void> start();
  asio::awaitable<void> start_server(bool as_standby, pg::Millis timeout);
  asio::awaitable<void> stop_for_larger_limits();
  asio::awaitable<void> stop_postgres(postgres::StopMode mode);
  asio::awaitable<void> stop_as_ordered();
  asio::awaitable<void> roles_and_slots();
  asio::awaitable<void> keep_running();
  void started(bool as_standby);
  std::string written_names() const;
  asio::awaitable<void> prepare();
  asio::awaitable<void> free_from_stray_timeline(const WalPosition& local, const WalPosition& upstream);
  asio::awaitable<void> cut_off();
  asio::awaitable<void> fetch();
  void release();
  asio::awaitable<std::optional<Lsn>> refresh_facts();
  asio::awaitable<LocalFacts> look(pg::Connection& local);
  // Throws Error when the disk does not answer soon: then what was begun goes on, and carry_out() does nothing before
  // it is over.
  void write_files(postgres::Settings settings, bool standby);

  // Writes the state file when `save` says so. Nothing is done or told because of it unless holds_state().
  void keep(Core::Save save);
  bool holds_state();
  void log_reason();
  std::string notices() const;  // what does not keep this node from its goal, and somebody should know

  asio::io_context& context_;
  Node node_;
  postgres::Instance instance_;
  Core core_;
  StateFile state_file_;
  Recorder recorder_;
  postgres::CertificateWatch certificates_;
  DiskWatch disk_;
  os::FileWork files_;          // of PGDATA
  std::optional<Report> told_;  // the last one to the monitor that the state file held
  ArchivePatience archive_patience_;
  StreamPatience stream_patience_;
  std::string logged_reason_;
  std::string slots_notice_;
  std::string replay_notice_;
  bool limits_lack_{false};                   // of this standby (standby_limits.hpp): compared before each start
  bool larger_limits_due_{false};             // it runs, and does not go on without
  std::int64_t strict_version_{0};            // of the names for which the walsenders were started anew
  std::optional<MonitorAccess> next_access_;  // made while the present session had no answer
  NodeState logged_goal_{NodeState::init};
  bool telling_{false};  // what the monitor has forgotten, since its last order
  std::optional<Millis> settings_differ_since_;
  bool names_differ_for_new_sessions_{false};
  bool settings_unreadable_{false};
  postgres::Settings written_;  // by this process
  bool reload_due_{true};       // PostgreSQL may not have read what is written

  os::Event report_now_;
  pg::Millis heartbeat_{1000};  // until the monitor says how often
  os::Event reconcile_now_;
  os::Event names_now_;
  os::Event watch_now_;  // an order may make the next LSN urgent
  os::Event depart_now_;
  os::Event promoted_now_;
  std::optional<postgres::StopMode> stopping_;
  bool leaving_{false};
  bool letting_go_{false};
  bool finished_{false};
  ExitCode exit_code_{ExitCode::ok};
};

}  // namespace pgvigil::keeper
