// The words of the small enumerations, as they stand in the monitor's tables and in messages.
#include <algorithm>

#include "common/model/goal.hpp"
#include "common/model/group.hpp"

namespace pgvigil {

std::string_view to_string(UpstreamSight sight) {
  switch (sight) {
    case UpstreamSight::unknown: return "unknown";
    case UpstreamSight::ok: return "ok";
    case UpstreamSight::refused: return "refused";
    case UpstreamSight::silent: return "silent";
  }
  return "?";
}

std::optional<UpstreamSight> parse_upstream_sight(std::string_view text) {
  for (const auto sight : {UpstreamSight::unknown, UpstreamSight::ok, UpstreamSight::refused, UpstreamSight::silent}) {
    if (to_string(sight) == text) return sight;
  }
  return std::nullopt;
}

std::string_view to_string(ProbeResult result) {
  switch (result) {
    case ProbeResult::unknown: return "unknown";
    case ProbeResult::good: return "good";
    case ProbeResult::refused: return "refused";
    case ProbeResult::rejected: return "rejected";
    case ProbeResult::silent: return "silent";
  }
  return "?";
}

std::string_view to_string(RequestKind kind) {
  switch (kind) {
    case RequestKind::failover: return "failover";
    case RequestKind::promotion: return "promotion";
    case RequestKind::drop_node: return "drop_node";
    case RequestKind::start_maintenance: return "start_maintenance";
    case RequestKind::stop_maintenance: return "stop_maintenance";
  }
  return "?";
}

std::optional<RequestKind> parse_request_kind(std::string_view text) {
  for (const auto kind : {RequestKind::failover, RequestKind::promotion, RequestKind::drop_node,
                          RequestKind::start_maintenance, RequestKind::stop_maintenance}) {
    if (to_string(kind) == text) return kind;
  }
  return std::nullopt;
}

void add_names(std::vector<NamesInForce>& lists, NamesInForce entry) {
  std::erase_if(lists, [&](const NamesInForce& other) { return other.names == entry.names && other.by == entry.by; });
  lists.push_back(std::move(entry));
}

void set_heir(std::vector<NamesInForce>& lists, NodeId heir) {
  for (NamesInForce& entry : lists) entry.heir = heir;
}

const NodeView* GroupSnapshot::find(NodeId id) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(), [id](const NodeView& node) { return node.id == id; });
  return found == nodes.end() ? nullptr : &*found;
}

}  // namespace pgvigil
