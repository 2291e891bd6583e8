#include "keeper/actions/stopped.hpp"

#include <algorithm>
#include <string>
#include <string_view>

#include "common/log/log.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

// What stands behind the last occurrence of `words`, up to a character of `ends`.
std::optional<std::string> after(const std::string& text, std::string_view words, std::string_view ends) {
  const auto found = text.rfind(words);
  if (found == std::string::npos) return std::nullopt;
  const auto begin = found + words.size();
  return text.substr(begin, text.find_first_of(ends, begin) - begin);
}

// The first byte after the start of the last whole record from `from` on: where a record begins before a switch point
// it ends there at the latest, so this tells on which side the WAL ends. nullopt: pg_waldump ended for a reason of its
// own.
asio::awaitable<std::optional<Lsn>> last_record(const postgres::Instance& instance, Timeline timeline, Lsn from,
                                                std::uint64_t segment_size) {
  const std::vector<std::string> argv{(instance.settings().bindir / "pg_waldump").string(), "--stats",
                                      "--path=" + (instance.settings().pgdata / "pg_wal").string(),
                                      "--timeline=" + std::to_string(timeline.value), "--start=" + to_string(from)};
  os::ProcessOptions options;
  options.timeout.reset();  // a new order ends it
  options.environment["LC_ALL"] = "C";
  const os::ProcessResult result = co_await os::run(argv, options);
  // WAL has no end mark: it always ends with an error, in what comes after the last record ...
  if (const auto last = after(result.output, "error in WAL record at ", ":")) {
    const auto lsn = parse_lsn(*last);
    if (lsn) co_return Lsn{lsn->value + 1};
  }
  // ... or with a segment that is not there ...
  if (const auto name = after(result.output, "could not find file \"", "\"")) {
    if (const auto begin = segment_begins(*name, segment_size)) co_return std::max(from, *begin);
  }
  // ... or there is none.
  if (result.output.find("could not find a valid record after") != std::string::npos) co_return from;
  log::warn("pg_waldump does not say where the WAL of timeline {} ends: {}", timeline.value, result.output);
  co_return std::nullopt;
}

// Where recovery begins by backup_label, which a base backup and a rewind leave behind, and which goes as soon as the
// checkpoint that it names has been read; nullopt without one.
std::optional<Lsn> backup_begins(const fs::path& pgdata) {
  const auto label = os::read_file(pgdata / "backup_label");
  if (!label) return std::nullopt;
  const auto place = after(*label, "START WAL LOCATION: ", " \n");
  return place ? parse_lsn(*place) : std::nullopt;
}

}  // namespace

asio::awaitable<Stopped> read_stopped(const postgres::Instance& instance) {
  const fs::path pgdata = instance.settings().pgdata;
  Stopped stopped;
  stopped.control = co_await instance.control_data();
  const postgres::ControlData& control = stopped.control;
  const auto label = backup_begins(pgdata);
  stopped.recovery_begins = label.value_or(control.redo);
  WalPosition& position = stopped.local.position;
  position.timeline = std::max(control.timeline, control.min_recovery_timeline);
  // Its record ends later; what begins before a switch point ends there at the latest.
  position.lsn = std::max(Lsn{control.checkpoint.value + 1}, control.min_recovery_end);
  position.history = read_history(pgdata / "pg_wal", position.timeline).value_or(History{});
  // What has been copied is not on its own way yet: it has to recover to there, whatever lies in its pg_wal.
  if (control.clean_shutdown() || label) co_return stopped;
  Lsn from = control.redo;
  if (!position.history.empty()) from = std::max(from, position.history.back().switch_point);
  const auto end = co_await last_record(instance, position.timeline, from, control.segment_size);
  if (end) position.lsn = std::max(position.lsn, *end);
  stopped.local.exact = end.has_value();
  co_return stopped;
}

}  // namespace pgvigil::keeper
