#include "keeper/actions/copy_marker.hpp"

#include <sstream>
#include <string>
#include <string_view>

#include "common/os/file.hpp"
#include "common/postgres/data_directory.hpp"

namespace pgvigil::keeper {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view wal_key = "pg_wal ";

fs::path marker(const Node& node) {
  return node.file("copy-in-progress");
}

}  // namespace

bool copy_unfinished(const Node& node) {
  return fs::exists(marker(node));
}

void rewind_begins(const Node& node) {
  os::write_file_atomic(marker(node), "rewind\n");
}

void base_backup_begins(const Node& node, const std::vector<fs::path>& filling, const std::optional<fs::path>& wal) {
  std::string text = "base backup\n";
  if (wal) text += std::string(wal_key) + wal->string() + "\n";
  for (const fs::path& directory : filling) text += directory.string() + "\n";
  os::write_file_atomic(marker(node), text);
}

void copy_ends(const Node& node, const std::function<void()>& save) {
  save();
  fs::remove(marker(node));
}

std::vector<fs::path> half_filled(const Node& node) {
  std::vector<fs::path> directories;
  std::istringstream lines(os::read_file(marker(node)).value_or(std::string()));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('/')) directories.emplace_back(line);
  }
  return directories;
}

std::optional<fs::path> wal_elsewhere(const Node& node) {
  if (auto linked = postgres::linked_wal(node.pgdata())) return linked;
  std::istringstream lines(os::read_file(marker(node)).value_or(std::string()));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(wal_key)) return fs::path(line.substr(wal_key.size()));
  }
  return std::nullopt;
}

}  // namespace pgvigil::keeper
