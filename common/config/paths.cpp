// Where a node's configuration and its state lie.
#include <unistd.h>

#include <cstdlib>

#include "common/config/config.hpp"

namespace pgvigil::config {

namespace {

std::string short_name(const fs::path& pgdata) {
  const std::string absolute = fs::absolute(pgdata).lexically_normal().string();
  std::string name;
  for (const char c : absolute) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    if (plain) {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  // FNV-1a: two paths that look alike after the clean-up keep different names.
  std::uint32_t hash = 2166136261u;
  for (const char c : absolute) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  char digits[9];
  std::snprintf(digits, sizeof digits, "%08x", hash);
  return name.substr(name.size() > 60 ? name.size() - 60 : 0) + "-" + digits;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path home() {
  const std::string directory = environment("HOME");
  return directory.empty() ? fs::path("/") : fs::path(directory);
}

const fs::path system_directory = "/etc/pgvigil";

// Where files may lie, the place for new ones first.
std::vector<fs::path> config_directories() {
  if (const std::string given = environment("PGVIGIL_CONFIG_DIR"); !given.empty()) return {given};
  const std::string xdg = environment("XDG_CONFIG_HOME");
  const fs::path own = (xdg.empty() ? home() / ".config" : fs::path(xdg)) / "pgvigil";
  if (::access(system_directory.c_str(), W_OK) == 0) return {system_directory, own};
  return {own, system_directory};
}

bool is_of(const fs::path& file, const fs::path& pgdata) {
  try {
    return data_directory(load(file).pgdata) == pgdata;
  } catch (const std::exception&) {
    return false;  // somebody else's, or broken: whoever means that one is told so
  }
}

std::optional<fs::path> existing_file(const fs::path& directory, const fs::path& pgdata) {
  std::error_code error;
  const fs::path usual = directory / (short_name(pgdata) + ".toml");
  if (fs::exists(usual, error)) return usual;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".toml" && is_of(entry.path(), pgdata)) return entry.path();
  }
  return std::nullopt;
}

}  // namespace

fs::path data_directory(const fs::path& given) {
  const fs::path absolute = fs::absolute(given).lexically_normal();
  return absolute.has_filename() || !absolute.has_relative_path() ? absolute : absolute.parent_path();  // "/srv/pg/"
}

fs::path config_path_for(const fs::path& pgdata) {
  const fs::path absolute = data_directory(pgdata);
  const auto directories = config_directories();
  for (const fs::path& directory : directories) {
    if (const auto found = existing_file(directory, absolute)) return *found;
  }
  return directories.front() / (short_name(absolute) + ".toml");
}

fs::path config_named(const std::string& given) {
  if (given.find('/') != std::string::npos) return fs::absolute(given).lexically_normal();
  return config_directories().front() / (given.ends_with(".toml") ? given : given + ".toml");
}

fs::path config_path_for(const fs::path& pgdata, const std::optional<std::string>& given) {
  const fs::path found = config_path_for(pgdata);
  if (!given || config_named(*given) == found) return found;
  if (fs::exists(found))
    throw UserError(ExitCode::bad_arguments, pgdata.string() + " has a configuration already: " + found.string(),
                    "leave out --config, or rename that file");
  return config_named(*given);
}

std::string unit_of(const Config& config) {
  if (config.file.parent_path() != system_directory) return {};
  const std::string name = config.file.stem().string();
  if (config.role == Role::keeper) return "pgvigil-keeper@" + name + ".service";
  return name == "monitor" ? "pgvigil-monitor.service" : "";
}

std::string default_state_directory(const fs::path& config_file) {
  const std::string name = config_file.stem().string();
  if (config_file.parent_path() == system_directory) return "/var/lib/pgvigil/" + name;
  const std::string xdg = environment("XDG_STATE_HOME");
  const fs::path base = xdg.empty() ? home() / ".local" / "state" : fs::path(xdg);
  return (base / "pgvigil" / name).string();
}

}  // namespace pgvigil::config
