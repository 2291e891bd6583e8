// What every command line here shares: a tree of commands with their help, strict options, and how an error ends a
// program.
//
//   int main(int argc, char** argv) {
//     return cli::run_main("pgvigil-keeper", argc, argv, [](const std::vector<std::string>& args) {
//       return cli::dispatch(program(), args);
//     });
//   }
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil::cli {

struct Option {
  std::string name;   // "pgdata", or with a short form "verbose,v"
  std::string value;  // what follows it, for the help: "DIR". Empty: a flag
  std::string help;
  std::vector<std::string>
      environment{};  // variables that stand in when it is absent, in this order; empty ones do not count
};

// The options and arguments of one command, already checked against what it takes.
class Args {
 public:
  bool has(const std::string& name) const;                          // given, or in the environment
  bool given(const std::string& name) const;                        // on the command line itself
  int count(const std::string& name) const;                         // how often a flag was given
  std::optional<std::string> maybe(const std::string& name) const;  // the last one wins
  std::string get(const std::string& name, const std::string& fallback = {}) const;
  std::string require(const std::string& name) const;  // throws UserError(bad_arguments)
  // Throw UserError(bad_arguments) when the value is not a whole number in min..max, or not
  // true/false/on/off/yes/no/1/0.
  int integer(const std::string& name, int fallback, int min, int max) const;
  bool boolean(const std::string& name, bool fallback) const;

  std::vector<std::string> arguments;  // what is not an option, in order; of a pass_through command: everything
  std::vector<std::string> raw;        // everything after the command's words, as it was written

 private:
  friend Args parse_options(const std::vector<Option>&, const std::vector<std::string>&);
  std::map<std::string, std::vector<std::string>> values_;  // from the command line
  std::map<std::string, std::string> environment_;
};

// Throws UserError(bad_arguments) for an unknown option, a missing or empty value, or a value where none belongs.
// Abbreviations are refused: what one writes today must not change its meaning with a later release.
Args parse_options(const std::vector<Option>& options, const std::vector<std::string>& args);

// Of a daemon: --verbose and --quiet, for `common`, and the log's level that they mean, else `otherwise`. They count
// until the configuration is read again.
std::vector<Option> log_options();
std::string log_level(const Args& args, const std::string& otherwise);

// A whole number in min..max, or UserError(bad_arguments) that names `what`.
int parse_integer(const std::string& text, const std::string& what, int min, int max);
bool parse_boolean(const std::string& text, const std::string& what);

struct Command {
  std::string path;     // "show state"
  std::string summary;  // one line
  std::vector<Option> options{};
  std::vector<std::string> arguments{};  // "NAME", "[NAME]": how many there may be, and the help
  std::function<int(const Args&)> run{};
  std::string details{};     // more for its own --help
  bool pass_through{false};  // the arguments are somebody else's: not checked, and --help is not caught
  std::string same_as{};     // whose they are, for the manual: "pgvigil-keeper create"
  std::vector<std::pair<std::string, std::string>> values{};  // what the first argument may be, with its meaning
};

struct Program {
  std::string name;
  std::string summary;
  std::vector<Command> commands;
  std::vector<Option> common{};  // of every command; --help is always there
  std::string epilogue{};        // at the end of the main help
};

// Runs the command that `args` (without the program's name) asks for. `help [COMMAND]` and --help print and return 0;
// so does `help --bash-completion`, and `help --manual DIR` writes manual.hpp's pages there. Flags of `common` may also
// stand before the command.
int dispatch(const Program& program, const std::vector<std::string>& args);

std::vector<std::string> words_of(const std::string& path);

// Help texts: of the whole program, of the commands that begin with `prefix` ("show"), of one command.
std::string help_text(const Program& program);
std::string help_text(const Program& program, const std::string& prefix);
std::string help_text(const Program& program, const Command& command);

// Calls `body` with the arguments after the program's name and returns the exit code. An exception is printed to stderr
// as "program: error: WHAT" and, when there is one, "hint: ...": a UserError ends with its own code, a lost connection
// with monitor (6), an error of a server with sql (4), all else with internal (12).
int run_main(const std::string& program, int argc, char** argv,
             const std::function<int(const std::vector<std::string>&)>& body) noexcept;

}  // namespace pgvigil::cli
