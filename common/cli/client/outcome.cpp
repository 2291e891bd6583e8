#include "common/cli/client/outcome.hpp"

#include <algorithm>
#include <ctime>

#include "common/cli/client/writer.hpp"
#include "common/cli/json_text.hpp"
#include "common/cli/table.hpp"

namespace pgvigil::client {

using cli::cell;

namespace {

// Notifications wake us; this is for what is not told by an event (a node that reaches its goal).
constexpr pg::Millis poll_interval{100};

std::string wall_clock() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char text[32];
  const std::size_t length = std::strftime(text, sizeof text, "%H:%M:%S", &parts);
  const std::string fraction = std::to_string(millis);
  return std::string(text, length) + "." + std::string(3 - fraction.size(), '0') + fraction;
}

std::string padded(const std::string& text, std::size_t width) {
  return text + std::string(width - std::min(width, cli::display_width(text)), ' ');
}

std::string unsettled_nodes(const json::array& nodes) {
  std::string list;
  for (const json::value& node : nodes) {
    if (converged(node)) continue;
    const std::string reason = cell(node, "reason");
    list += (list.empty() ? "" : "; ") + cell(node, "nodename") + " is on its way from " +
            cell(node, "current_group_state") + " to " + cell(node, "assigned_group_state") +
            (reason.empty() ? "" : " (" + reason + ")");
  }
  return list;
}

}  // namespace

Follower::Follower(Monitor& monitor, const Args& args, std::string formation, std::optional<int> group,
                   std::chrono::seconds limit)
    : monitor_(monitor),
      args_(args),
      formation_(std::move(formation)),
      group_(group),
      limit_(limit),
      deadline_(std::chrono::steady_clock::now() + limit) {
  monitor_.listen();
  nodes_ = monitor_.current_state(formation_, group_);
  for (const json::value& node : nodes_) {
    shown_[integer_of(node, "node_id")] = cell(node, "current_group_state") + " " + cell(node, "assigned_group_state");
  }
}

void Follower::show_changes() {
  if (args_.has("json") || args_.has("quiet")) return;
  std::size_t name_width = 4;
  std::size_t host_width = 9;
  for (const json::value& node : nodes_) {
    name_width = std::max(name_width, cli::display_width(cell(node, "nodename")));
    host_width = std::max(host_width, cell(node, "nodehost").size() + 1 + cell(node, "nodeport").size());
  }
  const auto line = [&](const std::string& time, const std::string& name, const std::string& host,
                        const std::string& from, const std::string& to) {
    print(" " + padded(time, 12) + " | " + padded(name, name_width) + " | " + padded(host, host_width) + " | " +
          padded(from, 19) + " | " + to + "\n");
  };
  for (const json::value& node : nodes_) {
    const std::string states = cell(node, "current_group_state") + " " + cell(node, "assigned_group_state");
    std::string& last = shown_[integer_of(node, "node_id")];
    if (last == states) continue;
    last = states;
    if (!header_shown_) {
      line("Time", "Name", "Host:Port", "Reported State", "Assigned State");
      print(std::string(14, '-') + "+" + std::string(name_width + 2, '-') + "+" + std::string(host_width + 2, '-') +
            "+" + std::string(21, '-') + "+" + std::string(20, '-') + "\n");
      header_shown_ = true;
    }
    line(wall_clock(), cell(node, "nodename"), cell(node, "nodehost") + ":" + cell(node, "nodeport"),
         cell(node, "current_group_state"), cell(node, "assigned_group_state"));
  }
}

bool Follower::step() {
  const auto left = std::chrono::duration_cast<pg::Millis>(deadline_ - std::chrono::steady_clock::now());
  if (left.count() <= 0) return false;
  monitor_.wait_event(std::min(left, poll_interval));
  nodes_ = monitor_.current_state(formation_, group_);
  show_changes();
  return true;
}

std::string Follower::wait_decision(std::int64_t request) {
  for (;;) {
    const auto result =
        monitor_.query("select status, message from pgvigil.request_status($1::bigint)", {std::to_string(request)});
    const std::string status = result.text(0, "status");
    const std::string message = result.text(0, "message");
    if (status == "refused")
      throw UserError(ExitCode::bad_arguments, "refused: " + message,
                      "`pgvigil show state` and `pgvigil show events` tell more");
    if (status != "pending") return message;
    if (!step()) {
      throw UserError(
          ExitCode::internal, "the monitor has not decided within " + std::to_string(limit_.count()) + " s",
          "is `pgvigil run` of the monitor alive? The request stands for as long as the formation's drain_ms says; a "
          "monitor that starts later refuses it");
    }
  }
}

json::array Follower::wait_settled() {
  nodes_ = monitor_.current_state(formation_, group_);
  show_changes();
  while (!settled(nodes_)) {
    if (step()) continue;
    const std::string writer = writer_name(nodes_);
    throw UserError(ExitCode::internal,
                    "the group has not come to rest within " + std::to_string(limit_.count()) +
                        " s: " + (writer.empty() ? "no node takes writes" : writer + " takes writes") + "; " +
                        unsettled_nodes(nodes_),
                    "it goes on by itself; `pgvigil show state --watch` follows it");
  }
  return nodes_;
}

json::array Follower::wait_node(std::int64_t node, const std::vector<std::string>& states) {
  nodes_ = monitor_.current_state(formation_, group_);
  show_changes();
  for (;;) {
    const auto found = std::find_if(nodes_.begin(), nodes_.end(),
                                    [node](const json::value& row) { return integer_of(row, "node_id") == node; });
    if (found == nodes_.end()) throw UserError(ExitCode::bad_arguments, "the node has left the formation");
    const bool there = std::find(states.begin(), states.end(), cell(*found, "current_group_state")) != states.end();
    if (there && converged(*found)) return nodes_;
    if (step()) continue;
    throw UserError(ExitCode::internal,
                    cell(*found, "nodename") + " is still " + cell(*found, "current_group_state") + " after " +
                        std::to_string(limit_.count()) + " s",
                    "`pgvigil show why` tells what it waits for; it goes on by itself");
  }
}

json::array Follower::nodes() {
  return monitor_.current_state(formation_, group_);
}

void Follower::wait_gone(std::int64_t node) {
  const auto is_it = [node](const json::value& row) { return integer_of(row, "node_id") == node; };
  nodes_ = monitor_.current_state(formation_, group_);
  while (std::any_of(nodes_.begin(), nodes_.end(), is_it)) {
    if (step()) continue;
    throw UserError(ExitCode::internal, "the node is still there after " + std::to_string(limit_.count()) + " s",
                    "its keeper has to stop PostgreSQL first; --force removes a node whose keeper is gone for good");
  }
}

}  // namespace pgvigil::client
