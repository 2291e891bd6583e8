// Timelines and where they part. A timeline is known by its number together with the switch points of its ancestors.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil {

// One line of a timeline history file: `timeline` ended at `switch_point`, where its child began.
struct HistoryEntry {
  Timeline timeline;
  Lsn switch_point;
  friend bool operator==(const HistoryEntry&, const HistoryEntry&) = default;
};
// The ancestors of a timeline, oldest first; empty for timeline 1.
using History = std::vector<HistoryEntry>;

// The text of a .history file; throws pgvigil::Error on a malformed line. Format: PostgreSQL's timeline.c,
// readTimeLineHistory().
History parse_history_file(const std::string& text);

// "1:0/3000000,2:0/5000000" both ways: the form in reports and in the monitor's tables.
std::string to_string(const History& history);
std::optional<History> parse_history(std::string_view text);

// A place in the WAL, and how one gets there.
struct WalPosition {
  Timeline timeline;
  Lsn lsn;
  History history;
};

// Where `history` leaves `timeline`; nullopt when it never was on it.
std::optional<Lsn> switch_point(const History& history, Timeline timeline);

// The same place, named by the timeline that it lies on: a node that follows timeline 2 but has not yet got past the
// point where 2 begins is still on its ancestor.
WalPosition effective(WalPosition position);

// All WAL up to `other` is part of what leads to `position`.
bool contains(const WalPosition& position, const WalPosition& other);

// The last point that both have in common; 0 when their histories have nothing in common.
Lsn common_point(const WalPosition& left, const WalPosition& right);

}  // namespace pgvigil
