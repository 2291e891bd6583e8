// stop, reload, status, enable monitor: the daemon of the local node.
#include "common/os/process.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <thread>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/client/enable_monitor.hpp"
#include "common/cli/client/local.hpp"
#include "common/cli/json_text.hpp"
#include "common/postgres/certificate_watch.hpp"

namespace pgvigil::client {

namespace {

using Clock = std::chrono::steady_clock;

const char* daemon_name(const config::Config& config) {
  return config.role == config::Role::monitor ? "pgvigil-monitor" : "pgvigil-keeper";
}

// As pg_ctl does: 3 when there is nothing to signal.
pid_t running_daemon(const config::Config& config) {
  const auto pid = daemon_pid(config);
  if (!pid) {
    throw UserError(ExitCode::bad_state, std::string(daemon_name(config)) + " is not running for " + config.pgdata,
                    "`pgvigil run --pgdata " + config.pgdata + "` starts it");
  }
  return *pid;
}

int stop(const Args& args) {
  if (args.has("fast") && args.has("immediate")) {
    throw UserError(ExitCode::bad_arguments, "--fast and --immediate exclude each other");
  }
  const int wait_seconds = args.integer("wait", 120, 0, 86400);
  const config::Config config = load_config(args);
  const pid_t pid = running_daemon(config);
  const auto handle = os::PidFd::open(pid);  // before the signal: the number could be used again afterwards
  if (!handle) return 0;
  const int number = args.has("immediate") ? SIGQUIT : args.has("fast") ? SIGINT : SIGTERM;
  send_signal(pid, number, ExitCode::keeper);
  const auto deadline = Clock::now() + std::chrono::seconds(wait_seconds);
  while (handle->alive()) {
    if (Clock::now() >= deadline) {
      throw UserError(ExitCode::internal,
                      std::string(daemon_name(config)) + " (process " + std::to_string(pid) +
                          ") is still stopping after " + std::to_string(wait_seconds) + " s",
                      "its log says what it waits for; --fast and --immediate do not wait for sessions");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  note(args, std::string(daemon_name(config)) + " has stopped");
  return 0;
}

int reload(const Args& args) {
  const config::Config config =
      load_config(args);  // a file that cannot be read is refused here, before the daemon sees it
  const pid_t pid = running_daemon(config);
  send_signal(pid, SIGHUP, ExitCode::reload);
  note(args, std::string("told ") + daemon_name(config) + " (process " + std::to_string(pid) + ") to read " +
                 config.file.string());
  return 0;
}

json::object daemon_object(const config::Config& config, const std::optional<int>& pid) {
  const char* status = pid ? "running" : "not running";
  json::array services;
  if (pid) {
    services.push_back(
        json::object{{"name", daemon_name(config)}, {"pid", *pid}, {"status", status}, {"version", PGVIGIL_VERSION}});
  }
  return {{"pid", pid.value_or(0)},
          {"status", status},
          {"pgdata", config.pgdata},
          {"version", PGVIGIL_VERSION},
          {"role", config.role == config::Role::monitor ? "monitor" : "keeper"},
          {"config", config.file.string()},
          {"services", services}};
}

std::string ending_certificates(const config::Config& config) {
  std::string notice;
  boost::asio::io_context context(1);
  boost::asio::co_spawn(context, postgres::ending_certificates(postgres::certificates_of(config)),
                        [&](std::exception_ptr, std::string text) { notice = std::move(text); });
  context.run();
  return notice;
}

int status(const Args& args) {
  const config::Config config = load_config(args);
  const auto pid = daemon_pid(config);
  // A monitor in somebody else's PostgreSQL has none of its own.
  const bool has_postgres = config.database_uri.empty();
  const json::object postgres = has_postgres ? local_postgres(config) : json::object{};
  const bool ready = !has_postgres || postgres_word(postgres) == "ready";
  const std::string certificates = ending_certificates(config);
  if (args.has("json")) {
    print_json(json::object{
        {"postgres", postgres}, {"pg_autoctl", daemon_object(config, pid)}, {"certificates", certificates}});
  } else {
    print(std::string(daemon_name(config)) + ": " + (pid ? "running, process " + std::to_string(*pid) : "not running") +
          "\n");
    if (has_postgres) {
      const std::string number = cli::cell(postgres, "pid");
      print("PostgreSQL: " + postgres_word(postgres) + (number == "0" ? "" : ", process " + number) + ", port " +
            std::to_string(config.port) + ", " + config.pgdata + "\n");
    }
    if (!certificates.empty()) print(certificates + "\n");
  }
  if (!pid) return static_cast<int>(ExitCode::bad_state);
  return static_cast<int>(ready ? ExitCode::ok : ExitCode::postgres);
}

}  // namespace

std::vector<Command> process_commands() {
  return {
      {"stop",
       "stop the node's daemon and its PostgreSQL",
       {pgdata_option(),
        {"fast", "", "SIGINT instead of SIGTERM"},
        {"immediate", "", "SIGQUIT: PostgreSQL will have to recover at its next start"},
        {"wait", "SECONDS", "how long to wait for the end (120)"}},
       {},
       stop,
       "Exits with 3 when it is not running."},
      enable_monitor_command(),
      {"reload", "make the node's daemon read its configuration again", {pgdata_option()}, {}, reload},
      {"status",
       "does the node's daemon run, and is its PostgreSQL ready?",
       {pgdata_option(), json_option()},
       {},
       status,
       "Exits with 0 when all is well, 3 when the daemon is not running, 5 when PostgreSQL is not ready."},
  };
}

}  // namespace pgvigil::client
