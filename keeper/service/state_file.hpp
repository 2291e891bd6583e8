// What a keeper must not forget: one JSON file, written atomically, in the node's state directory.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "keeper/fsm/core.hpp"

namespace pgvigil::keeper {

std::string to_json(const KeeperState& state);
// Throws UserError(bad_state) naming what is wrong.
KeeperState parse_state(const std::string& json);

std::filesystem::path state_path(const std::string& state_directory);
std::optional<KeeperState> load_state(const std::string& state_directory);
void save_state(const std::string& state_directory, const KeeperState& state);

}  // namespace pgvigil::keeper
