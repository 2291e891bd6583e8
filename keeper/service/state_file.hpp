// What a keeper must not forget: one JSON file, written atomically, in the node's state directory.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/os/thread.hpp"
#include "keeper/fsm/core.hpp"

namespace pgvigil::keeper {

std::string to_json(const KeeperState& state);
// Throws UserError(bad_state) naming what is wrong.
KeeperState parse_state(const std::string& json);

std::filesystem::path state_path(const std::string& state_directory);
std::optional<KeeperState> load_state(const std::string& state_directory);
void save_state(const std::string& state_directory, const KeeperState& state);

// Whether the file holds what it must. A write that failed, or is not over, stays due: what it was about has changed in
// memory already, and must neither be told nor acted on before it is there.
class StateFile {
 public:
  explicit StateFile(std::string state_directory, os::FileWork::Millis patience = os::FileWork::usual)
      : directory_(std::move(state_directory)), work_(patience) {}
  void changed() { ++wanted_; }
  // Writes it when that is due. False: it could not be written, or its disk does not answer; failure() says why, and
  // what to do.
  bool holds(const KeeperState& state);
  const std::string& failure() const { return failure_; }

 private:
  std::string directory_;
  os::FileWork work_;
  // Changes are counted: what was on its way when another one came does not hold that.
  std::uint64_t wanted_{0};
  std::uint64_t writing_{0};
  std::uint64_t written_{0};
  std::string failure_;
};

}  // namespace pgvigil::keeper
