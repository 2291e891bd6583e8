#include "keeper/actions/aside.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <fstream>
#include <vector>

#include "common/log/log.hpp"
#include "common/os/file.hpp"

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

struct Segment {
  fs::path path;
  std::uint64_t position{0};  // of its first byte
  std::uint64_t size{0};
};

bool is_segment(const std::string& name) {
  return name.size() == 24 && std::all_of(name.begin(), name.end(),
                                          [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
}

std::uint64_t hexadecimal(std::string_view digits) {
  std::uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return value;
}

// The segments of the local timeline that reach past `from`. A name holds the timeline, the high half of the LSN, and
// the number of the segment within it (xlog_internal.h).
std::vector<Segment> segments_from(const fs::path& wal, Timeline timeline, Lsn from) {
  std::vector<Segment> found;
  for (const auto& entry : fs::directory_iterator(wal)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || !is_segment(name)) continue;
    if (hexadecimal(std::string_view(name).substr(0, 8)) != timeline.value) continue;
    const std::uint64_t size = entry.file_size();
    if (size == 0) continue;
    const std::uint64_t begin = (hexadecimal(std::string_view(name).substr(8, 8)) << 32) +
                                hexadecimal(std::string_view(name).substr(16, 8)) * size;
    if (begin + size > from.value) found.push_back({entry.path(), begin, size});
  }
  std::sort(found.begin(), found.end(), [](const Segment& a, const Segment& b) { return a.position < b.position; });
  return found;
}

// A recycled segment has the name of WAL to come and the pages of WAL long gone. A page begins with magic, info (16
// bits each), timeline (32) and its own address (64): xlog_internal.h, XLogPageHeaderData.
bool begins_with_its_own_page(const Segment& segment) {
  std::ifstream file(segment.path, std::ios::binary);
  std::array<char, 16> header{};
  file.read(header.data(), header.size());
  std::uint64_t address = 0;
  std::memcpy(&address, header.data() + 8, sizeof address);
  return file.good() && address == segment.position;
}

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

}  // namespace

void keep_aside(const Node& node, const WalPosition& local, const WalPosition& upstream) {
  const Lsn fork = common_point(local, upstream);
  const fs::path wal = node.pgdata() / "pg_wal";
  std::error_code error;
  if (!fs::is_directory(wal, error)) return;
  auto segments = segments_from(wal, local.timeline, fork);
  std::erase_if(segments, [](const Segment& segment) { return !begins_with_its_own_page(segment); });
  if (segments.empty()) return;
  const fs::path directory = node.file("diverged");
  os::make_directories(directory, 0700);
  auto sets = existing_sets(directory);
  const int number = sets.empty() ? 1 : sets.back() + 1;
  const fs::path unfinished = directory / "unfinished";
  try {
    fs::remove_all(unfinished);
    os::make_directories(unfinished, 0700);
    for (const Segment& segment : segments) fs::copy_file(segment.path, unfinished / segment.path.filename());
    for (const auto& entry : fs::directory_iterator(wal)) {
      if (entry.path().extension() == ".history") fs::copy_file(entry.path(), unfinished / entry.path().filename());
    }
    os::write_file_atomic(unfinished / "README",
                          "WAL of timeline " + std::to_string(local.timeline.value) + " from " + to_string(fork) +
                              " on, where it left the history of its group. It was kept before PGDATA was rewound or "
                              "copied anew.\nRead it with pg_waldump; remove it when it is not wanted.\n");
    fs::rename(unfinished, directory / std::to_string(number));
  } catch (const std::exception& failure) {
    fs::remove_all(unfinished, error);
    throw Error(std::string("the WAL that only this node has cannot be kept aside, so nothing is replaced: ") +
                failure.what());
  }
  log::info("{} segments of diverged WAL from {} on are kept in {}", segments.size(), to_string(fork),
            (directory / std::to_string(number)).string());
  sets.push_back(number);
  while (sets.size() > static_cast<std::size_t>(kept_sets)) {
    fs::remove_all(directory / std::to_string(sets.front()));
    sets.erase(sets.begin());
  }
}

}  // namespace pgvigil::keeper
