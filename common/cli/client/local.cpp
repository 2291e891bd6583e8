#include "common/cli/client/local.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <sstream>
#include <vector>

#include "common/os/file.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::client {

namespace {

namespace fs = std::filesystem;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(line.substr(0, line.find_last_not_of(" \r") + 1));
  }
  return lines;
}

// The first 16 bytes of global/pg_control have had the same meaning in every release
// (src/include/catalog/pg_control.h): system identifier, version of the file, version of the catalog.
json::object control_of(const fs::path& pgdata) {
  const auto content = os::read_file(pgdata / "global" / "pg_control");
  if (!content || content->size() < 16) return {};
  std::uint64_t system = 0;
  std::uint32_t version = 0;
  std::uint32_t catalog = 0;
  std::memcpy(&system, content->data(), sizeof system);
  std::memcpy(&version, content->data() + 8, sizeof version);
  std::memcpy(&catalog, content->data() + 12, sizeof catalog);
  return {{"version", version}, {"catalog_version", catalog}, {"system_identifier", std::to_string(system)}};
}

std::optional<pid_t> postmaster_pid(const config::Config& config) {
  postgres::InstanceSettings settings;
  settings.pgdata = config.pgdata;
  settings.bindir = config.bindir;
  settings.port = config.port;
  settings.socket_directory = config.socket_directory.empty() ? config.state_directory : config.socket_directory;
  const auto found = postgres::Instance(settings).postmaster();
  return found ? std::optional(found->pid()) : std::nullopt;
}

}  // namespace

std::optional<int> daemon_pid(const config::Config& config) {
  return os::PidFile::holder(fs::path(config.state_directory) / "pid");
}

void send_signal(int pid, int number, ExitCode when_refused) {
  if (::kill(pid, number) == 0 || errno == ESRCH) return;
  throw UserError(when_refused, "cannot signal process " + std::to_string(pid) + ": " + std::strerror(errno),
                  "run this as the user who owns the node");
}

json::object local_postgres(const config::Config& config) {
  const fs::path pgdata = config.pgdata;
  const auto pid = postmaster_pid(config);
  std::string status = "not running";
  if (pid) {
    const auto lines = lines_of(os::read_file(pgdata / "postmaster.pid").value_or(""));
    status = lines.size() >= 8 && !lines[7].empty() ? lines[7] : "starting";  // LOCK_FILE_LINE_PM_STATUS
  }
  std::error_code ignored;
  const bool standby = fs::exists(pgdata / "standby.signal", ignored);
  const auto version = lines_of(os::read_file(pgdata / "PG_VERSION").value_or(""));
  return {{"pgdata", config.pgdata},
          {"pg_ctl", (fs::path(config.bindir) / "pg_ctl").string()},
          {"version", version.empty() ? "" : version.front()},
          {"host", config.socket_directory.empty() ? config.state_directory : config.socket_directory},
          {"port", config.port},
          {"proxyport", 0},
          {"pid", pid.value_or(0)},
          {"in_recovery", standby},
          {"control", control_of(pgdata)},
          {"postmaster", json::object{{"status", status}}}};
}

std::string postgres_word(const json::object& postgres) {
  return json::value_to<std::string>(postgres.at("postmaster").at("status"));
}

json::object local_state(const config::Config& config) {
  const fs::path file = fs::path(config.state_directory) / "keeper.json";
  if (config.role != config::Role::keeper) {
    throw UserError(ExitCode::bad_arguments, "this is a monitor; only a data node has a local state",
                    "leave out --local");
  }
  const auto text = os::read_file(file);
  if (!text) {
    throw UserError(ExitCode::bad_state, "there is no state file " + file.string(),
                    "has `pgvigil create postgres` ended well?");
  }
  try {
    const json::value state = json::parse(*text);
    return {{"name", state.at("name")},
            {"current_role", state.at("reported")},
            {"assigned_role", state.at("goal").at("state")},
            {"version", state.at("version")},
            {"groupId", config.group},
            {"nodeId", state.at("node_id")},
            {"term", state.at("term")},
            {"timeline", state.at("timeline")},
            {"sslmode", state.as_object().contains("sslmode") ? state.at("sslmode") : json::value("prefer")}};
  } catch (const std::exception& error) {
    throw UserError(ExitCode::bad_state, "the state file " + file.string() + " cannot be used: " + error.what());
  }
}

}  // namespace pgvigil::client
