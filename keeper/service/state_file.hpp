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

// Whether the file holds what it must. A write that failed stays due: what it was about has changed in memory already,
// and must neither be told nor acted on before it is there.
class StateFile {
 public:
  explicit StateFile(std::string state_directory) : directory_(std::move(state_directory)) {}
  void changed() { due_ = true; }
  // Writes it when that is due. False: it could not be written; failure() says why, and what to do.
  bool holds(const KeeperState& state);
  const std::string& failure() const { return failure_; }

 private:
  std::string directory_;
  bool due_{false};
  std::string failure_;
};

}  // namespace pgvigil::keeper
