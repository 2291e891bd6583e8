// pg_controldata's words, as a value.
#include <charconv>
#include <map>
#include <sstream>

#include "common/os/process.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::postgres {

namespace {

std::map<std::string, std::string> fields_of(const std::string& output) {
  std::map<std::string, std::string> fields;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto start = line.find_first_not_of(' ', colon + 1);
    fields[line.substr(0, colon)] = start == std::string::npos ? "" : line.substr(start);
  }
  return fields;
}

constexpr std::pair<const char*, const char*> limits_of_standbys[]{
    {"max_connections setting", "max_connections"},
    {"max_worker_processes setting", "max_worker_processes"},
    {"max_wal_senders setting", "max_wal_senders"},
    {"max_prepared_xacts setting", "max_prepared_transactions"},
    {"max_locks_per_xact setting", "max_locks_per_transaction"},
};

}  // namespace

boost::asio::awaitable<ControlData> Instance::control_data() const {
  os::ProcessOptions options;
  options.environment["LC_ALL"] = "C";
  options.timeout = std::chrono::seconds{20};
  std::vector<std::string> argv{(settings_.bindir / "pg_controldata").string(), settings_.pgdata.string()};
  const os::ProcessResult result = co_await os::run(argv, options);
  if (!result.ok()) throw UserError(ExitCode::postgres, "pg_controldata failed: " + result.output);
  const auto fields = fields_of(result.output);
  const auto get = [&](const char* name) {
    const auto found = fields.find(name);
    if (found == fields.end()) throw Error(std::string("pg_controldata shows no \"") + name + "\"");
    return found->second;
  };
  const auto lsn = [&](const char* name) {
    const auto value = parse_lsn(get(name));
    if (!value) throw Error(std::string("pg_controldata shows no LSN for \"") + name + "\"");
    return *value;
  };
  const auto number = [&](const char* name, auto& value) {
    const std::string text = get(name);
    std::from_chars(text.data(), text.data() + text.size(), value);
  };
  ControlData control;
  control.system_identifier = get("Database system identifier");
  number("Latest checkpoint's TimeLineID", control.timeline.value);
  number("Min recovery ending loc's timeline", control.min_recovery_timeline.value);
  number("Bytes per WAL segment", control.segment_size);
  control.checkpoint = lsn("Latest checkpoint location");
  control.redo = lsn("Latest checkpoint's REDO location");
  control.min_recovery_end = lsn("Minimum recovery ending location");
  control.state = get("Database cluster state");
  control.checksums = get("Data page checksum version") != "0";
  control.wal_log_hints = get("wal_log_hints setting") == "on";
  for (const auto& [field, name] : limits_of_standbys) number(field, control.limits[name]);
  co_return control;
}

}  // namespace pgvigil::postgres
