// What a keeper must not forget: one JSON file, written atomically, in the node's state directory.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/model/goal.hpp"

namespace pgvigil::keeper {

struct KeeperState {
  NodeId node;
  std::string name;
  NodeState reported{NodeState::init};
  std::int64_t reported_seq{0};
  Term term;          // the highest promised; orders of an older one are refused
  Goal goal;          // the last one accepted
  Timeline timeline;  // the highest that WAL was received or written on
  std::vector<Peer> peers;
  std::int64_t peers_version{-1};
};

std::string to_json(const KeeperState& state);
// Throws UserError(bad_state) naming what is wrong.
KeeperState parse_state(const std::string& json);

std::filesystem::path state_path(const std::string& state_directory);
std::optional<KeeperState> load_state(const std::string& state_directory);
void save_state(const std::string& state_directory, const KeeperState& state);

}  // namespace pgvigil::keeper
