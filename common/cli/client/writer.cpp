#include "common/cli/client/writer.hpp"

#include <algorithm>

#include "common/cli/json_text.hpp"
#include "common/model/node_state.hpp"

namespace pgvigil::client {

namespace json = boost::json;
using cli::cell;

namespace {

bool writes_in(const json::value& node, std::string_view which) {
  const auto state = parse_node_state(cell(node, which));
  return state && takes_writes(*state);
}

std::string name_of_first(const json::array& nodes, bool (*condition)(const json::value&)) {
  const auto found = std::find_if(nodes.begin(), nodes.end(), condition);
  return found == nodes.end() ? "" : cell(*found, "nodename");
}

}  // namespace

bool converged(const json::value& node) {
  return cell(node, "current_group_state") == cell(node, "assigned_group_state");
}

std::string writer_name(const json::array& nodes) {
  return name_of_first(
      nodes, [](const json::value& node) { return converged(node) && writes_in(node, "current_group_state"); });
}

std::string assigned_writer_name(const json::array& nodes) {
  return name_of_first(nodes, [](const json::value& node) { return writes_in(node, "assigned_group_state"); });
}

bool settled(const json::array& nodes) {
  if (writer_name(nodes).empty()) return false;
  return std::all_of(nodes.begin(), nodes.end(), [](const json::value& node) {
    // A keeper that is silent may never come back. One that reports, with its PostgreSQL stopped on purpose, is on its
    // way.
    return converged(node) || cell(node, "heard") == "false";
  });
}

}  // namespace pgvigil::client
