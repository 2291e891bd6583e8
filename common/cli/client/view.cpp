#include "common/cli/client/view.hpp"

#include "common/cli/json_text.hpp"
#include "common/cli/table.hpp"
#include "common/model/node_state.hpp"

namespace pgvigil::client {

using cli::cell;

namespace {

// What a session on this node may do, by its reported state; "!" when the node is not healthy.
std::string connection_of(const json::value& node) {
  const auto state = parse_node_state(cell(node, "current_group_state"));
  std::string word = "none";
  if (state && takes_writes(*state)) {
    word = "read-write";
  } else if (state && runs_as_standby(*state)) {
    word = "read-only";
  }
  if (cell(node, "health") == "1") return word;
  return word + (cell(node, "health") == "0" ? " !" : " ?");
}

std::string address(const json::value& row) {
  const std::string host = cell(row, "nodehost");
  if (host.empty()) return {};
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + cell(row, "nodeport");
}

std::string node_word(const json::value& row) {
  const std::string id = cell(row, "nodeid");
  return cell(row, "groupid") + (id.empty() ? "" : "/" + id);
}

std::string states_word(const json::value& event) {
  const std::string goal = cell(event, "goalstate");
  return goal.empty() ? "" : cell(event, "reportedstate") + " -> " + goal;
}

}  // namespace

std::string state_table(const json::array& nodes) {
  if (nodes.empty()) return "There are no nodes.\n";
  cli::Table table({"Name", "Node", "Host:Port", "TLI: LSN", "Connection", "Reported State", "Assigned State"});
  table.align(3, cli::Align::right);
  std::string reasons;
  for (const json::value& node : nodes) {
    table.add({cell(node, "nodename"), cell(node, "group_id") + "/" + cell(node, "node_id"), address(node),
               cell(node, "reported_tli") + ": " + cell(node, "reported_lsn"), connection_of(node),
               cell(node, "current_group_state"), cell(node, "assigned_group_state")});
    const std::string reason = cell(node, "reason");
    if (!reason.empty()) reasons += "\n " + cell(node, "nodename") + ": " + reason;
  }
  return table.text() + (reasons.empty() ? "" : reasons + "\n");
}

std::string why_text(const json::array& rows) {
  if (rows.empty()) return "Every node is where it should be.\n";
  cli::Table table({"Name", "Reported -> Assigned", "Rule", "Since", "Waiting for"});
  for (const json::value& row : rows) {
    const std::string rule = cell(row, "rule");
    const std::string name = cell(row, "nodename");
    table.add({name.empty() ? "group " + cell(row, "group_id") : name,
               name.empty() ? "" : cell(row, "current_group_state") + " -> " + cell(row, "assigned_group_state"),
               rule == "0" ? "-" : rule, cli::local_time(cell(row, "since")), cell(row, "waiting_for")});
  }
  return table.text() + advice_text(rows);
}

std::string advice_text(const json::array& rows) {
  std::string text;
  for (const json::value& row : rows) {
    const std::string command = cell(row, "command");
    if (command.empty()) continue;
    const std::string name = cell(row, "nodename");
    text += "\n " + (name.empty() ? "group " + cell(row, "group_id") : name) + ": " + cell(row, "waiting_for") +
            "\n   " + command;
  }
  return text.empty() ? text : text + "\n";
}

std::string event_table(const json::array& events) {
  if (events.empty()) return "There are no events.\n";
  cli::Table table({"Event Time", "Id", "Name", "Reported -> Assigned", "Rule", "Description"});
  for (const json::value& event : events) {
    table.add({cli::local_time(cell(event, "eventtime")), node_word(event), cell(event, "nodename"), states_word(event),
               cell(event, "rule_pos") + " " + cell(event, "rule_name"), cell(event, "description")});
  }
  return table.text();
}

std::string event_line(const json::value& event) {
  const std::string name = cell(event, "nodename");
  const std::string states = states_word(event);
  return cli::local_time(cell(event, "eventtime")) + "  " + (name.empty() ? "group " + cell(event, "groupid") : name) +
         (states.empty() ? "" : "  " + states) + "  [" + cell(event, "rule_pos") + " " + cell(event, "rule_name") +
         "] " + cell(event, "description") + "\n";
}

}  // namespace pgvigil::client
