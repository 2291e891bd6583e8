// The moments of a failover or a switchover, told by those who saw them, and how they are put on one line. Pure.
//
// Everybody measures by a monotonic clock of its own; clocks of two hosts are never compared. What joins them is an
// order and the report on it: the monitor knows when it gave the order and when it heard the report, the keeper when it
// received the one and sent the other. What the keeper needed in between is known exactly; the rest is the time that
// both were on their way, known only as a sum. It is charged to the order: a keeper's moments stand where they were at
// the latest.
#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pgvigil::moments {

using Millis = std::chrono::milliseconds;

// The names, in the order of a failover and then of a switchover; words() says what each means.
// Of the monitor:
inline constexpr std::string_view last_evidence = "last_evidence";
inline constexpr std::string_view suspicion = "suspicion";
inline constexpr std::string_view verdict = "verdict";
inline constexpr std::string_view votes_asked = "votes_asked";
inline constexpr std::string_view fetching = "fetching";
inline constexpr std::string_view fenced = "fenced";
inline constexpr std::string_view chosen = "chosen";
inline constexpr std::string_view elected = "elected";
inline constexpr std::string_view ordered = "ordered";
inline constexpr std::string_view vote_heard = "vote_heard";  // the new primary's. Joins the clocks; not shown
inline constexpr std::string_view heard = "heard";            // that it takes writes. Joins the clocks; not shown
inline constexpr std::string_view asked = "asked";
inline constexpr std::string_view draining = "draining";
inline constexpr std::string_view stop_heard = "stop_heard";
inline constexpr std::string_view caught_up = "caught_up";
// Of the former primary's keeper, when it hands over:
inline constexpr std::string_view drain_received = "drain_received";
inline constexpr std::string_view stopping = "stopping";
inline constexpr std::string_view stopped = "stopped";
// Of the new primary's keeper:
inline constexpr std::string_view vote_received = "vote_received";
inline constexpr std::string_view cut_off = "cut_off";
inline constexpr std::string_view voted = "voted";  // the report was sent
inline constexpr std::string_view order_received = "order_received";
inline constexpr std::string_view promoting = "promoting";
inline constexpr std::string_view promoted = "promoted";
inline constexpr std::string_view first_write = "first_write";
inline constexpr std::string_view settled = "settled";
// Of both keepers: the report that said so was sent. Joins the clocks; not shown.
inline constexpr std::string_view reported = "reported";

struct Moment {
  std::string name;
  Millis at{0};        // by the teller's clock; only differences count
  std::string detail;  // more than words() says; may be empty
  friend bool operator==(const Moment&, const Moment&) = default;
};

// What was told of one takeover. Any part may be missing: a process that ended meanwhile tells nothing.
struct Told {
  std::vector<Moment> monitor;
  std::vector<Moment> former;
  std::vector<Moment> successor;
  std::string former_name;
  std::string successor_name;
};

struct Line {
  std::string name;
  std::string seen_by;  // "monitor", or a node's name
  Millis at{0};         // since the first line
  Millis part{0};       // since the line before; they add up to `at` of the last line
  std::string detail;
  friend bool operator==(const Line&, const Line&) = default;
};

// In the order of time.
std::vector<Line> compose(const Told& told);

// How long nobody could write, as far as those who have told know: to the first write, from where PostgreSQL began to
// stop (switchover), or from somewhere between the last evidence and the first sign of the loss. nullopt when nobody
// was seen to write.
struct Gap {
  Millis at_least{0};
  Millis at_most{0};
  friend bool operator==(const Gap&, const Gap&) = default;
};
std::optional<Gap> gap(const std::vector<Line>& lines);

// "failover", "forced failover" (an operator accepted the loss of data), "switchover"; "takeover" when the monitor has
// told nothing.
std::string_view kind(const std::vector<Moment>& of_monitor);

// What the moment means, for a person; "" for an unknown name.
std::string_view words(std::string_view name);

// Adds a moment at the end, in the place of an earlier one of that name: what was tried again counts from then.
void stamp(std::vector<Moment>& moments, std::string_view name, Millis at, std::string detail = {});
// nullptr when it is not there.
const Moment* find(const std::vector<Moment>& moments, std::string_view name);

}  // namespace pgvigil::moments
