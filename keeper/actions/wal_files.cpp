#include "keeper/actions/wal_files.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

namespace pgvigil::keeper {

namespace {

namespace fs = std::filesystem;

bool is_segment(const std::string& name) {
  return name.size() == 24 && std::all_of(name.begin(), name.end(),
                                          [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
}

std::uint64_t hexadecimal(std::string_view digits) {
  std::uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return value;
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

}  // namespace

// A name holds the timeline, the high half of the LSN, and the number of the segment within it (xlog_internal.h).
std::optional<Lsn> segment_begins(const std::string& name, std::uint64_t size) {
  if (!is_segment(name)) return std::nullopt;
  const std::string_view digits = name;
  return Lsn{(hexadecimal(digits.substr(8, 8)) << 32) + hexadecimal(digits.substr(16, 8)) * size};
}

std::vector<Segment> segments_in(const fs::path& wal) {
  std::vector<Segment> found;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(wal, unreadable)) {
    const std::string name = entry.path().filename().string();
    std::error_code gone;
    const std::uint64_t size = entry.is_regular_file(gone) ? entry.file_size(gone) : 0;
    if (gone || size == 0) continue;
    const auto begin = segment_begins(name, size);
    if (!begin) continue;
    const Timeline timeline{static_cast<std::uint32_t>(hexadecimal(std::string_view(name).substr(0, 8)))};
    const Segment segment{entry.path(), timeline, begin->value, size};
    if (begins_with_its_own_page(segment)) found.push_back(segment);
  }
  std::sort(found.begin(), found.end(), [](const Segment& a, const Segment& b) {
    return std::pair(a.position, a.timeline.value) < std::pair(b.position, b.timeline.value);
  });
  return found;
}

std::vector<Segment> segments_from(const fs::path& wal, Timeline timeline, Lsn from) {
  std::vector<Segment> found;
  for (Segment& segment : segments_in(wal)) {
    if (segment.timeline == timeline && segment.position + segment.size > from.value) found.push_back(segment);
  }
  return found;
}

namespace {

// Of segments_from(), those before the first gap.
std::vector<Segment> without_gap(const fs::path& wal, Timeline timeline, Lsn from) {
  auto segments = segments_from(wal, timeline, from);
  std::uint64_t next = from.value;
  const auto gap = std::find_if(segments.begin(), segments.end(), [&](const Segment& segment) {
    return segment.position > std::exchange(next, segment.position + segment.size);
  });
  segments.erase(gap, segments.end());
  return segments;
}

}  // namespace

Lsn received_up_to(const fs::path& wal, Timeline timeline, Lsn from) {
  const auto segments = without_gap(wal, timeline, from);
  return segments.empty() ? from : std::max(from, Lsn{segments.back().position});
}

bool whole_between(const fs::path& wal, Timeline timeline, Lsn from, Lsn to) {
  const auto segments = without_gap(wal, timeline, from);
  return to <= (segments.empty() ? from : Lsn{segments.back().position + segments.back().size});
}

namespace {

// Where the timeline begins; nullopt: it is not part of this history.
std::optional<Lsn> beginning(const WalPosition& along, Timeline timeline) {
  Lsn begin;
  for (const HistoryEntry& entry : along.history) {
    if (entry.timeline == timeline) return begin;
    begin = entry.switch_point;
  }
  return along.timeline == timeline ? std::optional(begin) : std::nullopt;
}

}  // namespace

Lsn recovered_up_to(const fs::path& wal, const WalPosition& along, Lsn from) {
  Lsn end = from;
  std::uint64_t next = from.value;
  for (const Segment& segment : segments_in(wal)) {
    const auto begin = beginning(along, segment.timeline);
    const std::uint64_t after = segment.position + segment.size;
    if (!begin || begin->value >= after || after <= from.value) continue;
    if (segment.position > next) break;
    next = after;
    end = std::max({end, *begin, Lsn{segment.position}});
  }
  return end;
}

std::string file_sent(const WalPosition& upstream, Lsn from, std::uint64_t segment_size) {
  Timeline timeline = upstream.timeline;
  const auto entry = std::find_if(upstream.history.begin(), upstream.history.end(),
                                  [from](const HistoryEntry& ended) { return from < ended.switch_point; });
  const std::uint64_t number = from.value / segment_size;
  if (entry != upstream.history.end()) {
    const auto next = std::next(entry);
    const bool ends_here = entry->switch_point.value / segment_size == number;
    if (!ends_here) timeline = entry->timeline;
    if (ends_here && next != upstream.history.end()) timeline = next->timeline;
  }
  const std::uint64_t in_high_half = (std::uint64_t{1} << 32) / segment_size;
  char name[25];
  std::snprintf(name, sizeof name, "%08X%08X%08X", timeline.value, static_cast<unsigned>(number / in_high_half),
                static_cast<unsigned>(number % in_high_half));
  return name;
}

}  // namespace pgvigil::keeper
