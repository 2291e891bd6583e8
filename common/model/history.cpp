#include "common/model/history.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace pgvigil {

History parse_history_file(const std::string& text) {
  History entries;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto start = line.find_first_not_of(" \t");
    if (start == std::string::npos || line[start] == '#') continue;
    std::istringstream fields(line);
    HistoryEntry entry;
    std::string lsn;
    if (!(fields >> entry.timeline.value >> lsn)) throw Error("malformed timeline history line: " + line);
    const auto position = parse_lsn(lsn);
    if (!position) throw Error("malformed switch point in a timeline history: " + line);
    entry.switch_point = *position;
    entries.push_back(entry);
  }
  return entries;
}

std::string to_string(const History& history) {
  std::string text;
  for (const HistoryEntry& entry : history) {
    if (!text.empty()) text += ',';
    text += std::to_string(entry.timeline.value) + ":" + to_string(entry.switch_point);
  }
  return text;
}

std::optional<History> parse_history(std::string_view text) {
  History history;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    const auto colon = item.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    HistoryEntry entry;
    const auto [end, error] = std::from_chars(item.data(), item.data() + colon, entry.timeline.value);
    const auto lsn = parse_lsn(item.substr(colon + 1));
    if (error != std::errc{} || colon == 0 || end != item.data() + colon || !lsn) return std::nullopt;
    entry.switch_point = *lsn;
    history.push_back(entry);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return std::nullopt;  // "1:0/1,"
  }
  return history;
}

std::optional<Lsn> switch_point(const History& history, Timeline timeline) {
  const auto found = std::find_if(history.begin(), history.end(),
                                  [timeline](const HistoryEntry& entry) { return entry.timeline == timeline; });
  return found == history.end() ? std::nullopt : std::optional(found->switch_point);
}

WalPosition effective(WalPosition position) {
  const auto past = std::find_if(position.history.begin(), position.history.end(),
                                 [&](const HistoryEntry& entry) { return entry.switch_point >= position.lsn; });
  if (past == position.history.end()) return position;
  position.timeline = past->timeline;
  position.history.erase(past, position.history.end());
  return position;
}

namespace {

// The ancestors and the timeline itself, with where each ends.
History whole(const WalPosition& given) {
  const WalPosition position = effective(given);
  History all = position.history;
  all.push_back({position.timeline, position.lsn});
  return all;
}

}  // namespace

Lsn common_point(const WalPosition& left, const WalPosition& right) {
  const History ours = whole(left);
  const History theirs = whole(right);
  Lsn common;
  for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
    if (ours[i].timeline != theirs[i].timeline) break;
    common = std::min(ours[i].switch_point, theirs[i].switch_point);
    if (ours[i].switch_point != theirs[i].switch_point) break;
  }
  return common;
}

bool contains(const WalPosition& position, const WalPosition& other) {
  return common_point(position, other) == other.lsn;
}

}  // namespace pgvigil
