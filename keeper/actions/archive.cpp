#include "keeper/actions/archive.hpp"

#include <vector>

#include "common/log/log.hpp"
#include "common/os/process.hpp"
#include "common/postgres/configured.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace fs = std::filesystem;

asio::awaitable<std::string> restore_command(const postgres::Instance& instance) {
  const postgres::InstanceSettings& settings = instance.settings();
  const fs::path file = instance.config_file();
  try {
    co_return co_await postgres::configured(settings.bindir, settings.pgdata, file, "restore_command");
  } catch (const Error& error) {  // the start will fail for it, and say so
    log::debug("restore_command cannot be read: {}", error.what());
  }
  co_return std::string();
}

std::string filled_in(const std::string& command, const std::string& file, const fs::path& to) {
  std::string text;
  for (std::size_t i = 0; i < command.size(); ++i) {
    const char next = command[i] == '%' && i + 1 < command.size() ? command[i + 1] : '\0';
    const bool known = next == 'f' || next == 'p' || next == 'r' || next == '%';
    if (!known) {
      text += command[i];
      continue;
    }
    ++i;
    if (next == 'f') text += file;
    if (next == 'p') text += to.string();
    if (next == 'r') text += std::string(24, '0');
    if (next == '%') text += '%';
  }
  return text;
}

asio::awaitable<bool> in_archive(const postgres::Instance& instance, const WalPosition& upstream, Lsn from,
                                 std::uint64_t segment_size) {
  const std::string command = co_await restore_command(instance);
  if (command.empty()) co_return false;
  const std::string file = file_sent(upstream, from, segment_size);
  // Where there is room for WAL, and by a relative path, as PostgreSQL has it.
  const fs::path name = "pg_wal/pgvigil-from-archive";
  const fs::path to = instance.settings().pgdata / name;
  const std::vector<std::string> argv{"/bin/sh", "-c", filled_in(command, file, name)};
  os::ProcessOptions options;
  options.timeout = std::chrono::minutes{1};
  options.working_directory = instance.settings().pgdata;
  std::error_code ignored;  // it is not there, as a rule
  fs::remove(to, ignored);
  const os::ProcessResult result = co_await os::run(argv, options);
  const bool there = result.ok() && fs::exists(to);
  fs::remove(to, ignored);
  if (there) {
    log::info("{} comes from the archive", file);
  } else {
    log::debug("restore_command does not bring {}: {}", file, result.output);
  }
  co_return there;
}

bool ArchivePatience::lasts(Lsn end, Clock::time_point now) {
  if (end_ != end || now - asked_ > std::chrono::minutes{2}) {
    end_ = end;
    since_ = now;
  }
  asked_ = now;
  return now - since_ <= limit;
}

}  // namespace pgvigil::keeper
