// enable ssl, disable ssl: of the local node, while it runs.
#include "common/postgres/tls.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <thread>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/client/local.hpp"
#include "common/cli/json_text.hpp"
#include "common/cli/tls_options.hpp"
#include "common/os/file.hpp"
#include "common/pg/connection.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

namespace {

void provide_certificate(const config::Config& config, bool anew) {
  boost::asio::io_context context(1);
  std::exception_ptr failure;
  boost::asio::co_spawn(context, cli::provide_certificate(config, anew),
                        [&](std::exception_ptr error) { failure = error; });
  context.run();
  if (failure) std::rethrow_exception(failure);
}

// As a node comes in. "" when it does, else why not.
std::string entrance_of_monitor(const Args& args, const config::Config& config) {
  pg::ConninfoMap values = pg::parse_conninfo(monitor_uri(args));
  values["password"] = os::read_secret_file(std::filesystem::path(config.state_directory) / "node-password");
  values.merge(config::shown_certificate(config));
  try {
    const pg::BlockingConnection session(pg::to_conninfo(values));
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

// What the keeper has seen to work, and is about to tell the others or has told them.
std::string entrance_of_node(const config::Config& config) {
  const std::string wanted = config.ssl ? config.ssl_mode : "prefer";
  const std::string present = cli::cell(local_state(config), "sslmode");
  return present == wanted ? "" : "it is reached by sslmode=" + present + " still, not by " + wanted;
}

// "" when the server shows the certificate of the configuration, else that it does not.
std::string other_certificate(const config::Config& config) {
  if (!config.ssl || config.ssl_cert_file.empty()) return {};
  boost::asio::io_context context(1);
  std::exception_ptr failure;
  bool served = false;
  boost::asio::co_spawn(context, postgres::is_served(config.ssl_cert_file, config.hostname, config.port),
                        [&](std::exception_ptr error, bool value) {
                          failure = error;
                          served = value;
                        });
  context.run();
  if (failure) std::rethrow_exception(failure);
  return served ? "" : "its PostgreSQL does not show " + config.ssl_cert_file + " yet";
}

void wait_until_it_counts(const Args& args, const config::Config& config, int seconds) {
  const bool monitor = config.role == config::Role::monitor;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (;;) {
    std::string missing = monitor ? entrance_of_monitor(args, config) : entrance_of_node(config);
    if (missing.empty()) missing = other_certificate(config);
    if (missing.empty()) return;
    if (std::chrono::steady_clock::now() >= deadline) {
      throw UserError(ExitCode::internal, "it does not count yet: " + missing,
                      config.ssl ? "the daemon's log and that of its PostgreSQL say why"
                                 : "the monitor has to hear of it first: `pgvigil show state`");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void say_what_is_left(const Args& args, const config::Config& config) {
  if (!config.manage_hba)
    note(args, std::string("pg_hba.conf is yours: ") + (config.ssl ? "hostssl" : "host") +
                   " in the lines of pgvigil's roles");
  if (config.role != config::Role::monitor) return;
  note(args, "the nodes go on by the monitor.uri of their own; what it is now: " + monitor_uri(args) +
                 " (pgvigil enable monitor)");
}

int change(const Args& args, bool enable) {
  const int seconds = args.integer("wait", 30, 0, 86400);
  config::Config config = load_own_config(args);
  if (!config.database_uri.empty())
    throw UserError(ExitCode::bad_arguments, "the monitor's PostgreSQL is not pgvigil's (--database-uri)",
                    "set up TLS there");
  if (enable) {
    cli::choose_tls(config, args, true);
    provide_certificate(config, args.has("ssl-self-signed"));
  } else {
    config.ssl = false;
  }
  config::save(config);
  const auto pid = daemon_pid(config);
  if (pid) {
    send_signal(*pid, SIGHUP, ExitCode::reload);
    if (seconds > 0) wait_until_it_counts(args, config, seconds);
  }
  note(args, std::string("TLS is ") + (enable ? "on, by sslmode=" + config.ssl_mode : "off") +
                 (pid ? "" : " from the next start on"));
  say_what_is_left(args, config);
  return 0;
}

int enable_ssl(const Args& args) {
  return change(args, true);
}

int disable_ssl(const Args& args) {
  return change(args, false);
}

}  // namespace

std::vector<Command> tls_commands() {
  const Option wait{"wait", "SECONDS", "how long to wait until it counts (30); 0: not at all"};
  std::vector<Option> options = cli::tls_options(false);
  options.insert(options.begin(), pgdata_option());
  options.push_back(wait);
  return {
      {"enable ssl",
       "encrypt sessions with the node or the monitor of --pgdata, or give it another certificate",
       options,
       {},
       enable_ssl,
       "Nothing is restarted. Without options: the certificate it had last, else one that is made here. The others are "
       "told\n"
       "to encrypt when the node has reached itself so: a certificate that does not work cuts nobody off. The monitor "
       "first,\n"
       "then each node. Exits with 12 when it does not count in time."},
      {"disable ssl",
       "the contrary",
       {pgdata_option(), wait},
       {},
       disable_ssl,
       "The others are told first. Where a node's monitor.uri says sslmode=require, change that before (pgvigil enable "
       "monitor)."},
  };
}

}  // namespace pgvigil::client
