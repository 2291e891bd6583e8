#include "common/model/sync_names.hpp"

#include <algorithm>
#include <charconv>

namespace pgvigil {

SyncNames normalized(SyncNames names) {
  std::sort(names.members.begin(), names.members.end());
  names.members.erase(std::unique(names.members.begin(), names.members.end()), names.members.end());
  if (names.members.empty()) names.required = 0;
  if (names.required == 0) names.members.clear();
  return names;
}

SyncNames nobody() {
  return {1, {NodeId{0}}};
}

std::string standby_name(NodeId node) {
  return "pgvigil_standby_" + std::to_string(node.value);
}

std::string to_guc(const SyncNames& names) {
  if (names.asynchronous()) return {};
  std::string text = "ANY " + std::to_string(names.required) + " (";
  for (std::size_t i = 0; i < names.members.size(); ++i) {
    if (i > 0) text += ", ";
    text += standby_name(names.members[i]);
  }
  return text + ")";
}

std::optional<int> fence_quorum(const SyncNames& names) {
  if (names.asynchronous()) return std::nullopt;
  // With fewer members than required the primary can't acknowledge anything as it stands, but a member that it
  // acknowledged with before could be any of them: all must answer.
  return std::max(1, static_cast<int>(names.members.size()) - names.required + 1);
}

bool fenced(const SyncNames& names, const std::vector<NodeId>& cut_off) {
  const auto needed = fence_quorum(names);
  if (!needed) return false;
  const auto answered = std::count_if(names.members.begin(), names.members.end(), [&](NodeId member) {
    return std::find(cut_off.begin(), cut_off.end(), member) != cut_off.end();
  });
  return answered >= *needed;
}

std::string to_array_literal(const std::vector<NodeId>& ids) {
  std::string text = "{";
  for (const NodeId id : ids) {
    if (text.size() > 1) text += ',';
    text += std::to_string(id.value);
  }
  return text + "}";
}

std::optional<std::vector<NodeId>> parse_array_literal(std::string_view text) {
  if (text.size() < 2 || text.front() != '{' || text.back() != '}') return std::nullopt;
  text = text.substr(1, text.size() - 2);
  std::vector<NodeId> ids;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    NodeId id;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), id.value);
    if (error != std::errc{} || item.empty() || end != item.data() + item.size()) return std::nullopt;
    ids.push_back(id);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return std::nullopt;  // "{1,}"
  }
  return ids;
}

}  // namespace pgvigil
