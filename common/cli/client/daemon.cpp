// Commands that the daemons carry out: this process becomes the daemon's.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"

namespace pgvigil::client {

namespace {

namespace fs = std::filesystem;

constexpr const char* monitor_program = "pgvigil-monitor";
constexpr const char* keeper_program = "pgvigil-keeper";

// /proc/self/exe is the real file, also when we were called through a symlink.
fs::path beside_us(const std::string& program) {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : self.parent_path() / program;
}

bool asks_for_help(const std::vector<std::string>& args) {
  for (const std::string& arg : args) {
    if (arg == "--help" || arg == "-h") return true;
  }
  return false;
}

// The configuration that the daemon will find by the same words: both daemons take the same, and --config goes first.
config::Config config_to_run(const std::vector<std::string>& raw) {
  std::vector<Option> options = cli::log_options();
  options.push_back(pgdata_option());
  options.push_back({"config", "FILE", ""});
  const Args args = cli::parse_options(options, raw);
  if (const auto given = args.maybe("config")) return config::load(config::config_named(*given));
  if (!args.has("pgdata")) {
    throw UserError(ExitCode::bad_arguments, "it is not said which node is meant",
                    "give --pgdata or --config, or set PGDATA");
  }
  return load_config(args);
}

int run(const Args& args) {
  if (asks_for_help(args.raw)) {
    print(
        "Usage: pgvigil run [--pgdata DIR | --config FILE] [OPTIONS]\n\nRuns the daemon of the node, in the "
        "foreground: pgvigil-monitor for a monitor, "
        "pgvigil-keeper for a data node.\n`pgvigil-monitor run --help` and `pgvigil-keeper run --help` show the "
        "options.\n");
    return 0;
  }
  const config::Config config = config_to_run(args.raw);
  exec_daemon(config.role == config::Role::monitor ? monitor_program : keeper_program, "run", args.raw);
}

Command handed_over(const std::string& path, const std::string& summary, const std::string& program,
                    const std::string& word) {
  Command command;
  command.path = path;
  command.summary = summary;
  command.pass_through = true;
  command.same_as = program + " " + word;
  command.run = [program, word, path, summary](const Args& args) -> int {
    try {
      exec_daemon(program, word, args.raw);
    } catch (const UserError&) {
      if (!asks_for_help(args.raw)) throw;
    }
    print("Usage: pgvigil " + path + " [OPTIONS]\n\n" + summary + "\n\n" + program +
          ", which does it, is not installed.\n");
    return 0;
  };
  return command;
}

}  // namespace

void exec_daemon(const std::string& program, const std::string& command, const std::vector<std::string>& args) {
  std::vector<std::string> words{program, command};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::signal(SIGPIPE, SIG_DFL);  // what is ignored would stay ignored in the daemon and its children
  const fs::path neighbour = beside_us(program);
  int reason = ENOENT;
  if (!neighbour.empty()) {
    ::execv(neighbour.c_str(), argv.data());
    reason = errno;
  }
  if (reason == ENOENT) {
    ::execvp(program.c_str(), argv.data());
    reason = errno;
  }
  throw UserError(ExitCode::internal, "cannot start " + program + ": " + std::strerror(reason),
                  "install it beside " + neighbour.parent_path().string() + "/pgvigil, or in a directory of PATH");
}

std::vector<Command> daemon_commands() {
  Command run_command;
  run_command.path = "run";
  run_command.summary = "run the daemon of a node in the foreground";
  run_command.pass_through = true;
  run_command.same_as = std::string(keeper_program) + " run";
  run_command.run = run;
  return {handed_over("create monitor", "make a monitor and its database", monitor_program, "create"),
          handed_over("create postgres", "make a data node and register it with a monitor", keeper_program, "create"),
          run_command, handed_over("drop monitor", "remove the monitor of this machine", monitor_program, "drop")};
}

}  // namespace pgvigil::client
