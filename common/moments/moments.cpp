#include "common/moments/moments.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace pgvigil::moments {

namespace {

// In the order in which they follow each other when they fall into the same millisecond.
constexpr auto meanings = std::to_array<std::pair<std::string_view, std::string_view>>({
    {asked, "the monitor knows of the command"},
    {draining, "the order to hand over is given (committed)"},
    {drain_received, "its keeper has it"},
    {stopping, "its checkpoint is made, PostgreSQL begins to stop: writes end"},
    {stopped, "PostgreSQL has stopped"},
    {stop_heard, "the monitor knows where its WAL ends"},
    {caught_up, "the new primary has all of it"},
    {last_evidence, "the old primary was last known to be well"},
    {suspicion, "the first sign that it is not"},
    {verdict, "it counts as lost"},
    {votes_asked, "the standbys are asked for their votes (committed)"},
    {vote_received, "its keeper has that order"},
    {cut_off, "no WAL of the old primary can arrive any more"},
    {voted, "its vote is sent"},
    {fetching, "the favourite is to fetch WAL from another vote"},
    {fenced, "the last vote is heard"},
    {chosen, "an operator's choice; now no former primary's lease may be valid"},
    {elected, "the new primary is decided on"},
    {ordered, "the order to take over is given (committed)"},
    {order_received, "its keeper has the order"},
    {promoting, "PostgreSQL is asked for the promotion"},
    {promoted, "PostgreSQL has left recovery: it takes writes"},
    {first_write, "a client's transaction has committed"},
    {settled, "settings, roles and slots are checked, the state is reached; clients need not wait for it"},
});

std::ptrdiff_t rank(std::string_view name) {
  return std::find_if(meanings.begin(), meanings.end(), [name](const auto& entry) { return entry.first == name; }) -
         meanings.begin();
}

// How a keeper's clock is joined to the monitor's.
struct Link {
  std::string_view order;     // of the monitor: given
  std::string_view received;  // of the keeper
  std::string_view reported;  // of the keeper: sent
  std::string_view heard;     // of the monitor
};

using Moments = std::vector<Moment>;

// Returns where the keeper's clock had its zero.
Millis place(std::vector<Line>& lines, const Moments& monitor, const Moments& keeper, const std::string& name,
             const Link& link, Millis unless_joined) {
  const Moment* order = find(monitor, link.order);
  const Moment* received = find(keeper, link.received);
  const Moment* sent = find(keeper, link.reported);
  const Moment* heard_at = find(monitor, link.heard);
  const bool joined = order != nullptr && received != nullptr;
  const bool round = joined && sent != nullptr && heard_at != nullptr;
  Millis begin = joined ? order->at - received->at : unless_joined;
  if (round) begin += std::max(Millis{0}, (heard_at->at - order->at) - (sent->at - received->at));
  for (const Moment& moment : keeper) {
    if (moment.name == reported) continue;
    Line line{moment.name, name, begin + moment.at, Millis{0}, moment.detail};
    // Whole milliseconds of two clocks: what was reported did not happen after it was heard.
    if (round && moment.at <= sent->at) line.at = std::min(line.at, heard_at->at);
    if (round && &moment == received) line.detail = std::string(words(moment.name)) + " (and the report's way back)";
    lines.push_back(std::move(line));
  }
  return begin;
}

}  // namespace

std::vector<Line> compose(const Told& told) {
  std::vector<Line> lines;
  for (const Moment& moment : told.monitor) {
    if (moment.name != heard && moment.name != vote_heard)
      lines.push_back({moment.name, "monitor", moment.at, Millis{0}, moment.detail});
  }
  Moments vote, takeover;
  for (const Moment& moment : told.successor) {
    const bool of_vote = moment.name == vote_received || moment.name == cut_off || moment.name == voted;
    (of_vote ? vote : takeover).push_back(moment);
  }
  place(lines, told.monitor, told.former, told.former_name, {draining, drain_received, reported, stop_heard},
        Millis{0});
  const Millis zero =
      place(lines, told.monitor, takeover, told.successor_name, {ordered, order_received, reported, heard}, Millis{0});
  place(lines, told.monitor, vote, told.successor_name, {votes_asked, vote_received, voted, vote_heard}, zero);
  std::stable_sort(lines.begin(), lines.end(), [](const Line& left, const Line& right) {
    return std::pair(left.at, rank(left.name)) < std::pair(right.at, rank(right.name));
  });
  if (lines.empty()) return lines;
  const Millis begin = lines.front().at;
  Millis before = begin;
  for (Line& line : lines) {
    line.part = line.at - std::exchange(before, line.at);
    line.at -= begin;
  }
  return lines;
}

std::optional<Gap> gap(const std::vector<Line>& lines) {
  const auto at = [&](std::string_view name) -> std::optional<Millis> {
    const auto found = std::find_if(lines.begin(), lines.end(), [name](const Line& line) { return line.name == name; });
    return found == lines.end() ? std::nullopt : std::optional(found->at);
  };
  const auto end = at(first_write);
  for (const auto name : {suspicion, stopping, verdict}) {
    const auto begin = at(name);
    if (!begin || !end) continue;
    const Millis earliest = name == suspicion ? std::min(at(last_evidence).value_or(*begin), *begin) : *begin;
    return Gap{*end - *begin, *end - earliest};
  }
  return std::nullopt;
}

std::string_view kind(const std::vector<Moment>& of_monitor) {
  if (find(of_monitor, chosen) != nullptr) return "forced failover";
  if (find(of_monitor, verdict) != nullptr) return "failover";
  if (find(of_monitor, caught_up) != nullptr) return "switchover";
  return "takeover";
}

std::string_view words(std::string_view name) {
  const auto index = static_cast<std::size_t>(rank(name));
  return index == meanings.size() ? std::string_view() : meanings[index].second;
}

void stamp(std::vector<Moment>& moments, std::string_view name, Millis at, std::string detail) {
  std::erase_if(moments, [name](const Moment& moment) { return moment.name == name; });
  moments.push_back({std::string(name), at, std::move(detail)});
}

const Moment* find(const std::vector<Moment>& moments, std::string_view name) {
  const auto found =
      std::find_if(moments.begin(), moments.end(), [name](const Moment& moment) { return moment.name == name; });
  return found == moments.end() ? nullptr : &*found;
}

}  // namespace pgvigil::moments
