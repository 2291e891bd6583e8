// How a failover went, as JSON and for a person.
#include "common/cli/client/view.hpp"
#include "common/cli/json_text.hpp"
#include "common/cli/table.hpp"
#include "common/moments/moments.hpp"
#include "common/monitor_api/json.hpp"

namespace pgvigil::client {

using cli::cell;

namespace {

moments::Told told_by(const json::array& rows) {
  moments::Told told;
  for (const json::value& row : rows) {
    const std::vector<moments::Moment> list = monitor_api::moments_from(row.at("told"));
    if (cell(row, "teller_id") == "0") {
      told.monitor = list;
      told.former_name = cell(row, "former_name");
    } else if (cell(row, "teller_id") == cell(row, "nodeid")) {
      told.successor = list;
    } else {
      told.former = list;
      if (told.former_name.empty()) told.former_name = cell(row, "teller_name");
    }
  }
  told.successor_name = cell(rows.front(), "nodename");
  return told;
}

}  // namespace

json::object takeover_object(const json::array& rows) {
  const moments::Told told = told_by(rows);
  json::array lines;
  const std::vector<moments::Line> composed = moments::compose(told);
  for (const moments::Line& line : composed) {
    const std::string detail = line.detail.empty() ? std::string(moments::words(line.name)) : line.detail;
    lines.push_back(json::object{{"moment", line.name},
                                 {"seen_by", line.seen_by},
                                 {"at_ms", line.at.count()},
                                 {"part_ms", line.part.count()},
                                 {"description", detail}});
  }
  const auto gap = moments::gap(composed);
  const json::object& event = rows.front().as_object();
  return {{"eventid", event.at("eventid")},
          {"eventtime", event.at("eventtime")},
          {"groupid", event.at("groupid")},
          {"term", event.at("term")},
          {"kind", moments::kind(told.monitor)},
          {"from", told.former_name},
          {"to", told.successor_name},
          {"gap_ms", gap ? json::value(gap->at_least.count()) : json::value()},
          {"gap_at_most_ms", gap ? json::value(gap->at_most.count()) : json::value()},
          {"moments", lines}};
}

std::string takeover_text(const json::object& takeover) {
  const json::value value = takeover;
  const std::string from = cell(value, "from");
  std::string text = cell(value, "kind") + (from.empty() ? "" : " from " + from) + " to " + cell(value, "to") +
                     ", group " + cell(value, "groupid") + ", term " + cell(value, "term") + ", " +
                     cli::local_time(cell(value, "eventtime")) + "\n\n";
  cli::Table table({"Moment", "Seen by", "At ms", "Part ms", "What"});
  table.align(2, cli::Align::right);
  table.align(3, cli::Align::right);
  for (const json::value& line : takeover.at("moments").as_array()) {
    table.add({cell(line, "moment"), cell(line, "seen_by"), cell(line, "at_ms"), cell(line, "part_ms"),
               cell(line, "description")});
  }
  const std::string least = cell(value, "gap_ms");
  const std::string most = cell(value, "gap_at_most_ms");
  text += table.text() + "\n";
  if (least.empty()) return text + "No client was seen to write since.\n";
  if (least == most) return text + "Nobody could write for " + least + " ms.\n";
  return text + "Nobody could write for at least " + least + " ms (since the first sign), at most " + most +
         " ms (since the last evidence).\n";
}

}  // namespace pgvigil::client
