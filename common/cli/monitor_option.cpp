#include "common/cli/monitor_option.hpp"

#include <cstdlib>

#include "common/os/file.hpp"

namespace pgvigil::cli {

pg::ConninfoMap parse_monitor_uri(const std::string& uri, const std::string& source) {
  try {
    return pg::parse_conninfo(uri);
  } catch (const Error& error) {
    throw UserError(ExitCode::bad_arguments, source + " is " + error.what(),
                    "for example postgres://pgvigil_node@monitor.example:5432/pgvigil");
  }
}

MonitorOption monitor_option(const Args& args, const std::string& known) {
  const std::string uri = known.empty() ? args.require("monitor") : args.get("monitor", known);
  const auto values = parse_monitor_uri(uri, "the monitor's URI");
  const auto password = values.find("password");
  if (password == values.end()) {
    const char* other = std::getenv("PGPASSWORD");
    return {uri, other == nullptr ? "" : other};
  }
  if (args.given("monitor")) {
    throw UserError(ExitCode::bad_arguments,
                    "--monitor holds a password, and everybody on this machine can read the list of processes",
                    "give --monitor-password-file FILE, or the password in PGPASSWORD");
  }
  return {pg::without_password(uri), password->second};
}

void keep_monitor_password(config::Config& config, const std::string& password) {
  const std::filesystem::path file = std::filesystem::path(config.state_directory) / "monitor-password";
  os::write_file_atomic(file, password + "\n", 0600);
  config.monitor_password_file = file.string();
}

}  // namespace pgvigil::cli
