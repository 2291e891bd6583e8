// synchronous_standby_names as a value, and the arithmetic of the quorum fence (rule S1).
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil {

// ANY `required` (`members`). required = 0 means asynchronous: the names are empty.
// Members are kept sorted and without doubles (see normalized()).
struct SyncNames {
  int required{0};
  std::vector<NodeId> members;

  friend bool operator==(const SyncNames&, const SyncNames&) = default;
  bool asynchronous() const { return required == 0; }
};

SyncNames normalized(SyncNames names);

// A list that nobody can satisfy: what standbys hold while number_sync_standbys > 0, so that a promotion begins with
// commits that wait.
SyncNames nobody();

// The application_name with which a node's walreceiver connects, and the name of its slot: "pgvigil_standby_7".
std::string standby_name(NodeId node);
// The value for synchronous_standby_names: "" or "ANY 1 (pgvigil_standby_2, pgvigil_standby_3)".
std::string to_guc(const SyncNames& names);

// How many of `names.members` must have cut themselves off from the primary so that it can never again collect an
// acknowledgement and so that one of them holds every acknowledged commit: k - n + 1. nullopt when the names are
// asynchronous: then no number of survivors is enough.
std::optional<int> fence_quorum(const SyncNames& names);

// True when the nodes in `cut_off` satisfy fence_quorum(names).
bool fenced(const SyncNames& names, const std::vector<NodeId>& cut_off);

// "{1,2}" both ways, PostgreSQL's text form of bigint[].
std::string to_array_literal(const std::vector<NodeId>& ids);
std::optional<std::vector<NodeId>> parse_array_literal(std::string_view text);

}  // namespace pgvigil
