#include "common/postgres/debian_layout.hpp"

#include <cstdlib>
#include <map>
#include <sstream>
#include <vector>

#include "common/model/types.hpp"
#include "common/os/file.hpp"

namespace pgvigil::postgres {

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

struct Setting {
  std::string name;
  std::string value;
};

// name = 'value'  # comment; the equals sign and, for simple values, the quotes may be missing (guc-file.l).
std::optional<Setting> setting_of(const std::string& line) {
  std::size_t at = line.find_first_not_of(" \t");
  if (at == std::string::npos || line[at] == '#') return std::nullopt;
  const std::size_t end = line.find_first_of(" \t=", at);
  if (end == std::string::npos) return std::nullopt;
  Setting setting{line.substr(at, end - at), ""};
  at = line.find_first_not_of(" \t=", end);
  if (at == std::string::npos) return setting;
  if (line[at] != '\'') {
    setting.value = line.substr(at, line.find_first_of(" \t#", at) - at);
    return setting;
  }
  for (++at; at < line.size() && (line[at] != '\'' || line.substr(at, 2) == "''"); ++at) {
    if (line[at] == '\'') ++at;
    setting.value += line[at];
  }
  return setting;
}

std::map<std::string, std::string> settings_of(const fs::path& file) {
  std::map<std::string, std::string> settings;
  for (const std::string& line : lines_of(os::read_file(file).value_or(""))) {
    if (const auto setting = setting_of(line)) settings[setting->name] = setting->value;
  }
  return settings;
}

// As pg_ctlcluster reads it: the first word of the file; no file, or an empty one, means auto.
bool starts_at_boot(const DebianCluster& cluster) {
  for (const std::string& line : lines_of(os::read_file(cluster.configuration / "start.conf").value_or(""))) {
    std::istringstream words(line);
    std::string word;
    if (words >> word && word[0] != '#') return word == "auto";
  }
  return true;
}

bool same_directory(const fs::path& one, const fs::path& other) {
  std::error_code error;
  return one == other || fs::equivalent(one, other, error);
}

}  // namespace

std::optional<DebianCluster> debian_cluster_of(const fs::path& pgdata) {
  const char* given = std::getenv("PG_CLUSTER_CONF_ROOT");
  const fs::path root = given == nullptr || *given == '\0' ? "/etc/postgresql" : given;
  std::error_code error;
  for (const auto& version : fs::directory_iterator(root, error)) {
    for (const auto& name : fs::directory_iterator(version.path(), error)) {
      const auto settings = settings_of(name.path() / "postgresql.conf");
      const auto data = settings.find("data_directory");
      if (data == settings.end() || !same_directory(data->second, pgdata)) continue;
      return DebianCluster{version.path().filename().string(), name.path().filename().string(), name.path()};
    }
  }
  return std::nullopt;
}

void refuse_unless_handed_over(const DebianCluster& cluster, bool runs) {
  const bool at_boot = starts_at_boot(cluster);
  if (!runs && !at_boot) return;
  const std::string unit = "postgresql@" + cluster.version + "-" + cluster.name;
  std::string what = "this is Debian's cluster " + cluster.version + "/" + cluster.name + ": ";
  what += runs ? "it runs" : "";
  what += runs && at_boot ? ", and " : "";
  what += at_boot ? unit + ".service starts it at boot" : "";
  throw UserError(ExitCode::bad_arguments, what,
                  "hand it over, as root:\n  echo manual > " + (cluster.configuration / "start.conf").string() +
                      "\n  systemctl daemon-reload\n  pg_ctlcluster " + cluster.version + " " + cluster.name +
                      " stop\nthen run this again; its configuration stays where it is");
}

}  // namespace pgvigil::postgres
