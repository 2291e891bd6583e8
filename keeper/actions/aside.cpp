#include "keeper/actions/aside.hpp"

#include <algorithm>
#include <boost/system/system_error.hpp>
#include <charconv>
#include <filesystem>
#include <vector>

#include "common/log/log.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"
#include "keeper/actions/room.hpp"
#include "keeper/actions/wal_files.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

// Of a set's files: what they are copies of.
constexpr const char* record_file = "originals";

// Stays free: what the keeper must not forget lies there, often PGDATA too. Without room for that it would be silent,
// or could not even begin the copy for which all this is done.
constexpr std::uintmax_t left_free = std::uintmax_t{64} << 20;

std::vector<int> existing_sets(const fs::path& directory) {
  std::vector<int> numbers;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    int number = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
    if (parsed.ec == std::errc{} && parsed.ptr == name.data() + name.size()) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// By which the same WAL is known again, as make knows what has not changed: a file that was written to since has
// another time.
std::string record_of(const std::vector<Segment>& segments) {
  std::string record;
  for (const Segment& segment : segments) {
    record += segment.path.filename().string() + " " + std::to_string(segment.size) + " " +
              std::to_string(fs::last_write_time(segment.path).time_since_epoch().count()) + "\n";
  }
  return record;
}

// Whole: nobody has taken anything out of it since.
bool holds(const fs::path& set, const std::string& record, const std::vector<Segment>& segments) {
  std::error_code error;
  if (!fs::exists(set / record_file, error) || os::read_file(set / record_file) != record) return false;
  return std::all_of(segments.begin(), segments.end(), [&](const Segment& segment) {
    return fs::file_size(set / segment.path.filename(), error) == segment.size && !error;
  });
}

// In another process: it may be many gigabytes, and the keeper has to be heard meanwhile. Flushed, for the originals
// are about to go.
asio::awaitable<void> copy_flushed(const std::vector<fs::path>& files, const fs::path& directory) {
  constexpr std::size_t at_a_time = 500;
  for (std::size_t begin = 0; begin < files.size(); begin += at_a_time) {
    std::vector<std::string> copy{"cp", "--reflink=auto", "--target-directory", directory.string(), "--"};
    std::vector<std::string> flush{"sync", "--"};
    for (std::size_t i = begin; i < std::min(files.size(), begin + at_a_time); ++i) {
      copy.push_back(files[i].string());
      flush.push_back((directory / files[i].filename()).string());
    }
    for (const auto& argv : {copy, flush}) {
      os::ProcessOptions options;
      options.timeout.reset();
      const os::ProcessResult result = co_await os::run(argv, options);
      if (!result.ok()) throw Error(argv.front() + ": " + result.output);
    }
  }
}

asio::awaitable<void> flush(const fs::path& directory) {
  const std::vector<std::string> argv{"sync", "--", directory.string()};
  const os::ProcessResult result = co_await os::run(argv);
  if (!result.ok()) throw Error("sync: " + result.output);
}

struct Kept {
  std::vector<Segment> segments;
  std::string record;
  Timeline timeline;
  Lsn fork;
};

asio::awaitable<void> fill(fs::path set, fs::path wal, Kept kept) {
  std::uintmax_t needed = 0;
  std::vector<fs::path> files;
  for (const Segment& segment : kept.segments) {
    needed += segment.size;
    files.push_back(segment.path);
  }
  const std::uintmax_t free = fs::space(set.parent_path()).available;
  if (free < needed + left_free) {
    throw Error("it needs " + in_bytes(needed) + ", beside " + in_bytes(left_free) + " for the node itself, and " +
                in_bytes(free) + " are free where " + set.parent_path().string() +
                " lies; make room there, or save and remove what lies in it");
  }
  for (const auto& entry : fs::directory_iterator(wal)) {
    if (entry.path().extension() == ".history") files.push_back(entry.path());
  }
  fs::remove_all(set);
  os::make_directories(set, 0700);
  co_await copy_flushed(files, set);
  os::write_file_atomic(set / record_file, kept.record);
  os::write_file_atomic(set / "README",
                        "WAL of timeline " + std::to_string(kept.timeline.value) + " from " + to_string(kept.fork) +
                            " on, where it left the history of its group. It was kept before PGDATA was rewound or "
                            "copied anew.\nRead it with pg_waldump; remove it when it is not wanted.\n");
}

}  // namespace

asio::awaitable<void> keep_aside(const Node& node, const WalPosition& local, Lsn fork, Progress progress) {
  const fs::path wal = node.pgdata() / "pg_wal";
  std::error_code error;
  if (!fs::is_directory(wal, error)) co_return;
  const auto segments = segments_along(wal, local, fork);
  if (segments.empty()) co_return;
  const Kept kept{segments, record_of(segments), local.timeline, fork};
  const fs::path directory = node.file("diverged");
  os::make_directories(directory, 0700);
  auto sets = existing_sets(directory);
  const auto same = std::find_if(sets.begin(), sets.end(), [&](int number) {
    return holds(directory / std::to_string(number), kept.record, segments);
  });
  if (same != sets.end()) {
    co_await flush(directory);
    co_return;
  }
  progress("keeps " + std::to_string(segments.size()) + " segments of its own WAL aside");
  const int number = sets.empty() ? 1 : sets.back() + 1;
  const fs::path unfinished = directory / "unfinished";
  const fs::path set = directory / std::to_string(number);
  std::string failed;
  try {
    co_await fill(unfinished, wal, kept);
    fs::rename(unfinished, set);
    co_await flush(directory);
  } catch (const boost::system::system_error&) {
    throw;  // another order has come: what is unfinished is removed the next time
  } catch (const std::exception& failure) {
    failed = failure.what();
  }
  if (!failed.empty()) {
    fs::remove_all(unfinished, error);
    throw Error("the WAL that only this node has cannot be kept aside, so nothing is replaced: " + failed);
  }
  log::info("{} segments of diverged WAL from {} on are kept in {}", segments.size(), to_string(fork), set.string());
  sets.push_back(number);
  while (sets.size() > static_cast<std::size_t>(kept_sets)) {
    fs::remove_all(directory / std::to_string(sets.front()));
    sets.erase(sets.begin());
  }
}

}  // namespace pgvigil::keeper
