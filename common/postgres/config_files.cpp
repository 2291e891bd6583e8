#include "common/postgres/config_files.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "common/os/file.hpp"

namespace pgvigil::postgres {

namespace {

constexpr const char* include_comment = "  # pgvigil: keep this the last line\n";
constexpr const char* hba_begin = "# BEGIN pgvigil: written by the keeper, changes here are lost";
constexpr const char* hba_end = "# END pgvigil";

void no_line_breaks(const std::string& value) {
  if (value.find_first_of(std::string("\n\r\0", 3)) != std::string::npos)
    throw Error("a value must not contain line breaks");
}

bool write_if_changed(const fs::path& path, const std::string& content) {
  if (os::read_file(path) == content) return false;
  os::write_file_atomic(path, content, 0600);
  return true;
}

// Its mode stays, and where it is a link, what it points to is written.
void replace_users_file(const fs::path& path, const std::string& content) {
  const fs::path file = fs::canonical(path);
  const auto mode = static_cast<unsigned>(fs::status(file).permissions()) & 0777u;
  os::write_file_atomic(file, content, mode);
}

std::string whole(std::ifstream& file) {
  file.clear();
  file.seekg(0);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines_of(const std::string& content) {
  std::vector<std::string> lines;
  std::size_t at = 0;
  while (at < content.size()) {
    const auto end = std::min(content.find('\n', at), content.size() - 1);
    lines.push_back(content.substr(at, end + 1 - at));
    at = end + 1;
  }
  return lines;
}

std::string quoted(const std::string& value) {
  std::string text = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') text += c;
    text += c;
  }
  return text + "'";
}

// A relative name is looked for beside the file that includes it.
std::string include_statement(const fs::path& pgdata, const fs::path& postgresql_conf) {
  const bool outside = postgresql_conf.parent_path() != pgdata;
  return "include " + quoted(outside ? (pgdata / settings_file).string() : settings_file);
}

bool is_own_include(const std::string& line) {
  return line.starts_with("include '") && line.find("postgresql-pgvigil.conf'") != std::string::npos;
}

std::string without_include(const std::string& content) {
  std::string kept;
  for (const std::string& line : lines_of(content)) {
    if (!is_own_include(line)) kept += line;
  }
  return kept;
}

// The file with our include line as its last one; nullopt when it is so already.
std::optional<std::string> with_include(const std::string& content, const std::string& statement) {
  const auto lines = lines_of(content);
  if (!lines.empty() && is_own_include(lines.back()) && lines.back().starts_with(statement)) return std::nullopt;
  std::string kept = without_include(content);
  if (!kept.empty() && kept.back() != '\n') kept += '\n';
  return kept + statement + include_comment;
}

bool is_in_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
         static_cast<unsigned char>(c) >= 0x80;
}

// ALTER SYSTEM and pg_basebackup -R write `name = 'value'` lines, ALTER SYSTEM with the capitals of a quoted name. To
// PostgreSQL that is the same name, and neither the sign nor a space has to follow it (guc-file.l, guc_name_compare()).
// "": the line has none.
std::string setting_of(const std::string& line) {
  std::string name;
  for (std::size_t at = line.find_first_not_of(" \t\r"); at < line.size(); ++at) {
    const char c = line[at];
    const char small = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (!is_in_name(small)) break;
    name += small;
  }
  return name;
}

std::string hba_word(const std::string& word) {
  no_line_breaks(word);
  // Keywords stay bare: quoting "all" or "replication" would make them names, and "+role" no more the role's members.
  const auto name = word.starts_with('+') ? word.begin() + 1 : word.begin();
  const bool bare = name != word.end() && std::all_of(name, word.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
                    });
  if (bare) return word;
  if (word.find('"') != std::string::npos) throw Error("an HBA entry must not contain quotes: " + word);
  return "\"" + word + "\"";
}

std::string hba_address(const std::string& address) {
  unsigned char buffer[sizeof(in6_addr)];
  if (::inet_pton(AF_INET, address.c_str(), buffer) == 1) return address + "/32";
  if (::inet_pton(AF_INET6, address.c_str(), buffer) == 1) return address + "/128";
  const bool plain = !address.empty() && std::all_of(address.begin(), address.end(), [](char c) {
    return static_cast<unsigned char>(c) > ' ' && c != '"' && c != ',' && c != '#' && c != '\'' && c != '\\';
  });
  if (!plain) throw Error("not a host name or address for an HBA entry: " + address);
  return address;
}

}  // namespace

std::string settings_text(const Settings& settings) {
  std::string content =
      "# Written by pgvigil's keeper; changes here are lost. Your own settings belong in postgresql.conf.\n";
  for (const auto& [name, value] : settings) {
    no_line_breaks(value);
    content += name + " = " + quoted(value) + "\n";
  }
  return content;
}

bool write_settings(const fs::path& pgdata, const fs::path& postgresql_conf, const Settings& settings) {
  const bool other_settings = write_if_changed(pgdata / settings_file, settings_text(settings));
  const std::string include = include_statement(pgdata, postgresql_conf);
  const bool included = edit_users_file(
      postgresql_conf, [&](const std::string& content) { return with_include(content, include).value_or(content); });
  return other_settings || included;
}

std::vector<std::string> drop_overrides(const fs::path& pgdata, const std::vector<std::string>& names) {
  const fs::path file = pgdata / "postgresql.auto.conf";
  std::vector<std::string> dropped;
  std::string kept;
  for (const std::string& line : lines_of(os::read_file(file).value_or(std::string()))) {
    const std::string name = setting_of(line);
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      kept += line;
    } else {
      dropped.push_back(name);
    }
  }
  if (!dropped.empty()) replace_users_file(file, kept);
  return dropped;
}

Settings read_settings(const fs::path& pgdata) {
  Settings settings;
  const std::string content = os::read_file(pgdata / settings_file).value_or(std::string());
  std::size_t at = 0;
  while (at < content.size()) {
    const auto end = std::min(content.find('\n', at), content.size());
    const std::string line = content.substr(at, end - at);
    at = end + 1;
    const auto equals = line.find(" = '");
    if (line.empty() || line[0] == '#' || equals == std::string::npos || line.back() != '\'') continue;
    std::string value;
    for (std::size_t i = equals + 4; i + 1 < line.size(); ++i) {
      if (line[i] == '\'' || line[i] == '\\') ++i;  // doubled by settings_text()
      value += line[i];
    }
    settings[line.substr(0, equals)] = value;
  }
  return settings;
}

bool set_standby_signal(const fs::path& pgdata, bool standby) {
  const fs::path signal = pgdata / "standby.signal";
  if (fs::exists(signal) == standby) return false;
  if (standby) {
    os::write_file_atomic(signal, "", 0600);
    return true;
  }
  os::remove_for_good(signal);
  return true;
}

bool has_standby_signal(const fs::path& pgdata) {
  return fs::exists(pgdata / "standby.signal");
}

bool edit_users_file(const fs::path& path, const std::function<std::string(const std::string&)>& change) {
  std::ifstream old(path, std::ios::binary);
  if (!old) throw Error("there is no " + path.string() + ", or it cannot be read");
  std::string present = whole(old);
  std::string wanted = change(present);
  if (wanted == present) return false;
  for (;;) {
    replace_users_file(path, wanted);
    std::string later = whole(old);  // of the file that was there, which somebody may have gone on writing
    if (later == present) return true;
    present = std::move(later);
    wanted = change(present);
  }
}

std::string hba_line(const HbaEntry& entry) {
  std::string line = entry.type + " " + hba_word(entry.database) + " " + hba_word(entry.user);
  if (entry.type != "local") line += " " + hba_address(entry.address);
  return line + " " + entry.method;
}

bool hba_names(const fs::path& hba_file, const std::string& user) {
  bool ours = false;
  for (const std::string& line : lines_of(os::read_file(hba_file).value_or(std::string()))) {
    if (line.starts_with(hba_begin)) ours = true;
    const std::string rule = line.substr(0, line.find('#'));
    if (!ours && rule.find(user) != std::string::npos) return true;
    if (line.starts_with(hba_end)) ours = false;
  }
  return false;
}

bool write_hba(const fs::path& hba_file, const std::vector<HbaEntry>& entries) {
  return edit_users_file(hba_file, [&](std::string content) {
    const auto begin = content.find(std::string(hba_begin) + "\n");
    const auto end = content.find(std::string(hba_end) + "\n");
    if ((begin == std::string::npos) != (end == std::string::npos) || (begin != std::string::npos && end < begin)) {
      throw Error("the lines of pgvigil in " + hba_file.string() +
                  " are damaged: remove what is left of them and reload");
    }
    if (begin != std::string::npos) content.erase(begin, end + std::string(hba_end).size() + 1 - begin);
    std::string block;
    for (const HbaEntry& entry : entries) block += hba_line(entry) + "\n";
    return block.empty() ? content : std::string(hba_begin) + "\n" + block + hba_end + "\n" + content;
  });
}

void remove_own_lines(const fs::path& pgdata, const fs::path& postgresql_conf, const fs::path& hba_file, bool hba) {
  if (fs::exists(postgresql_conf)) edit_users_file(postgresql_conf, without_include);
  if (hba && fs::exists(hba_file)) write_hba(hba_file, {});
  fs::remove(pgdata / settings_file);
}

}  // namespace pgvigil::postgres
