// show systemd: the package's unit, made fit for a node that lies elsewhere.
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>
#include <sstream>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "units.hpp"

namespace pgvigil::client {

namespace {

namespace fs = std::filesystem;

// As systemd.syntax(7) wants a word: specifiers and quotes escaped.
std::string word(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '%') out += '%';
    if (c == '"' || c == '\\') out += '\\';
    if (c == '$') out += '$';
    out += c;
  }
  return out.find(' ') == std::string::npos ? out : '"' + out + '"';
}

struct Owner {
  std::string user;
  std::string group;
};

// Who is to run the daemon: whoever owns the state that it writes.
Owner owner_of(const config::Config& config) {
  struct stat info {};
  if (::stat(config.state_directory.c_str(), &info) != 0) info.st_uid = ::geteuid(), info.st_gid = ::getegid();
  const passwd* user = ::getpwuid(info.st_uid);
  const group* its = ::getgrgid(info.st_gid);
  return {user == nullptr ? std::to_string(info.st_uid) : user->pw_name,
          its == nullptr ? std::to_string(info.st_gid) : its->gr_name};
}

bool below(const fs::path& path, const fs::path& directory) {
  const auto relative = path.lexically_relative(directory);
  return !relative.empty() && *relative.begin() != "..";
}

// What the daemon writes to and ProtectSystem=full would keep it from: files are replaced, so their directories.
std::string write_paths(const config::Config& config) {
  std::set<std::string> paths;
  for (const fs::path& file : {fs::path(config.config_file), fs::path(config.hba_file), fs::path(config.pgdata) / "x",
                               fs::path(config.state_directory) / "x"}) {
    std::error_code error;
    const fs::path directory = fs::weakly_canonical(file, error).parent_path();
    for (const char* closed : {"/etc", "/usr", "/boot"}) {
      if (below(directory, closed)) paths.insert("-" + directory.string());  // - : it may not be there yet
    }
  }
  std::string text;
  for (const std::string& path : paths) text += (text.empty() ? "" : " ") + word(path);
  return text;
}

int show_systemd(const Args& args) {
  const config::Config config = load_config(args);
  const bool keeper = config.role == config::Role::keeper;
  if (const std::string packaged = config::unit_of(config); !packaged.empty())
    note(args, "the package has a unit for it already: " + packaged);
  const fs::path daemon =
      fs::read_symlink("/proc/self/exe").parent_path() / (keeper ? "pgvigil-keeper" : "pgvigil-monitor");
  const Owner owner = owner_of(config);
  std::map<std::string, std::string> ours{
      {"Description", std::string("pgvigil ") + (keeper ? "keeper" : "monitor") + " of " + word(config.pgdata)},
      {"User", owner.user},
      {"Group", owner.group},
      {"RequiresMountsFor", word(config.pgdata) + " " + word(config.state_directory)},
      {"ExecStart", word(daemon.string()) + " run --config " + word(config.file.string())}};
  if (const std::string paths = write_paths(config); !paths.empty()) ours["ReadWritePaths"] = paths;
  std::string text = "# systemd unit of " + config.pgdata + ". As root: put it into /etc/systemd/system/pgvigil-" +
                     config.file.stem().string() + ".service, then systemctl daemon-reload.\n";
  std::istringstream lines(keeper ? keeper_unit : monitor_unit);
  bool first = true;
  for (std::string line; std::getline(lines, line); first = false) {
    if (first) continue;  // it says that it is the package's
    const auto found = ours.find(line.substr(0, line.find('=')));
    text += (found == ours.end() ? line : found->first + "=" + found->second) + "\n";
  }
  print(text);
  return 0;
}

}  // namespace

std::vector<Command> systemd_commands() {
  return {{"show systemd",
           "a systemd unit for the daemon of a node",
           {pgdata_option()},
           {},
           show_systemd,
           "Nodes whose configuration is in /etc/pgvigil have units already: pgvigil-keeper@NAME.service, "
           "pgvigil-monitor.service."}};
}

}  // namespace pgvigil::client
