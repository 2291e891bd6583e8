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

#include "common/os/file.hpp"

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

struct PageHeader {
  Timeline timeline;
  Lsn address;  // its own
};

// A page begins with magic, info (16 bits each), timeline (32) and its own address (64): xlog_internal.h,
// XLogPageHeaderData. nullopt: it cannot be read.
std::optional<PageHeader> page_header(const fs::path& segment, std::uint64_t offset) {
  std::ifstream file(segment, std::ios::binary);
  std::array<char, 16> bytes{};
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(bytes.data(), bytes.size());
  if (!file.good()) return std::nullopt;
  PageHeader header;
  std::memcpy(&header.timeline.value, bytes.data() + 4, sizeof header.timeline.value);
  std::memcpy(&header.address.value, bytes.data() + 8, sizeof header.address.value);
  return header;
}

// A recycled segment has the name of WAL to come and the pages of WAL long gone.
bool begins_with_its_own_page(const Segment& segment) {
  const auto header = page_header(segment.path, 0);
  return header && header->address.value == segment.position;
}

std::string segment_name(Timeline timeline, Lsn lsn, std::uint64_t segment_size) {
  const std::uint64_t number = lsn.value / segment_size;
  const std::uint64_t in_high_half = (std::uint64_t{1} << 32) / segment_size;
  char name[25];
  std::snprintf(name, sizeof name, "%08X%08X%08X", timeline.value, static_cast<unsigned>(number / in_high_half),
                static_cast<unsigned>(number % in_high_half));
  return name;
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

std::vector<Segment> segments_along(const fs::path& wal, const WalPosition& position, Lsn from) {
  std::vector<Segment> found;
  for (Segment& segment : segments_in(wal)) {
    const auto ended = switch_point(position.history, segment.timeline);
    const bool leads =
        segment.timeline == position.timeline || (ended && from < *ended && segment.position < ended->value);
    if (leads && segment.position + segment.size > from.value) found.push_back(segment);
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

std::optional<History> read_history(const fs::path& wal, Timeline timeline) {
  if (timeline.value <= 1) return History{};
  char name[32];
  std::snprintf(name, sizeof name, "%08X.history", static_cast<unsigned>(timeline.value));
  const auto text = os::read_file(wal / name);
  return text ? std::optional(parse_history_file(*text)) : std::nullopt;
}

namespace {

// The ancestors of a timeline that this position has come through or is on; nullopt: it has not.
std::optional<History> history_of(const WalPosition& position, Timeline timeline) {
  History ancestors;
  for (const HistoryEntry& entry : position.history) {
    if (entry.timeline == timeline) return ancestors;
    ancestors.push_back(entry);
  }
  return timeline == position.timeline ? std::optional(ancestors) : std::nullopt;
}

}  // namespace

std::vector<fs::path> stray_histories(const fs::path& wal, Timeline local, const WalPosition& upstream) {
  std::vector<fs::path> stray;
  for (const auto& entry : fs::directory_iterator(wal)) {
    const std::string name = entry.path().filename().string();
    if (name.size() != 16 || !name.ends_with(".history")) continue;
    const Timeline timeline{static_cast<std::uint32_t>(hexadecimal(std::string_view(name).substr(0, 8)))};
    const auto theirs = history_of(upstream, timeline);
    if (timeline > local && (!theirs || read_history(wal, timeline) != theirs)) stray.push_back(entry.path());
  }
  std::sort(stray.begin(), stray.end());
  return stray;
}

namespace {

// The walreceiver begins with the segment in which the timeline begins, and so does a promotion: the pages before that
// are its ancestors', in a file of its name (xlogrecovery.c, RequestXLogStreaming()).
bool holds_page_before(const fs::path& wal, Timeline timeline, Lsn begins, Lsn end, WalSizes sizes) {
  const Lsn last{end.value - 1};
  const Lsn page{last.value - last.value % sizes.page};
  const auto header = page_header(wal / segment_name(timeline, last, sizes.segment), page.value % sizes.segment);
  return header && header->address == page && (page < begins || header->timeline == timeline);
}

}  // namespace

std::optional<WalPosition> received_on(const fs::path& wal, const WalPosition& known, WalSizes sizes) {
  std::optional<WalPosition> found;
  // A standby goes over to the last one of an unbroken row of numbers (timeline.c, findNewestTimeLine()).
  for (Timeline later{known.timeline.value + 1};; ++later.value) {
    const auto history = read_history(wal, later);
    if (!history) return found;
    const bool goes_on = switch_point(*history, known.timeline).has_value();
    const Lsn begins = history->empty() ? Lsn{} : history->back().switch_point;
    if (goes_on && begins < known.lsn && holds_page_before(wal, later, begins, known.lsn, sizes))
      found = WalPosition{later, known.lsn, *history};
  }
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
  return segment_name(timeline, from, segment_size);
}

}  // namespace pgvigil::keeper
