#include <algorithm>
#include <iostream>
#include <set>

#include "common/cli/cli.hpp"
#include "common/cli/manual.hpp"
#include "common/os/file.hpp"

namespace pgvigil::cli {

namespace {

constexpr std::size_t help_width = 110;

bool wants_help(const std::vector<std::string>& args) {
  for (const std::string& arg : args) {
    if (arg == "--") return false;
    if (arg == "--help" || arg == "-h" || arg == "-?") return true;
  }
  return false;
}

bool begins_with_words(const std::vector<std::string>& words, const std::vector<std::string>& prefix) {
  return prefix.size() <= words.size() && std::equal(prefix.begin(), prefix.end(), words.begin());
}

// Two columns, the second one wrapped.
std::string two_columns(const std::vector<std::pair<std::string, std::string>>& lines) {
  std::size_t left = 0;
  for (const auto& line : lines) left = std::max(left, line.first.size());
  std::string text;
  for (const auto& [name, help] : lines) {
    std::string row = "  " + name + std::string(left - name.size() + 2, ' ');
    const std::string indent(left + 4, ' ');
    for (const std::string& word : words_of(help)) {
      if (row.size() > indent.size() && row.size() + word.size() > help_width) {
        text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
        row = indent;
      }
      row += word + " ";
    }
    text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::pair<std::string, std::string> help_line(const Option& option) {
  const std::size_t comma = option.name.find(',');
  std::string name = "    --" + option.name.substr(0, comma);
  if (comma != std::string::npos) name = "-" + option.name.substr(comma + 1) + ", --" + option.name.substr(0, comma);
  if (!option.value.empty()) name += " " + option.value;
  std::string help = option.help;
  for (std::size_t i = 0; i < option.environment.size(); ++i) {
    help += (i == 0 ? " [$" : ", $") + option.environment[i];
  }
  if (!option.environment.empty()) help += "]";
  return {name, help};
}

// The command whose words the arguments begin with, the longest such one.
const Command* find_command(const Program& program, const std::vector<std::string>& args) {
  const Command* best = nullptr;
  std::size_t length = 0;
  for (const Command& command : program.commands) {
    const auto words = words_of(command.path);
    if (words.size() > length && begins_with_words(args, words)) {
      best = &command;
      length = words.size();
    }
  }
  return best;
}

// The longest beginning of `args` that some command has, in words.
std::string known_prefix(const Program& program, const std::vector<std::string>& args) {
  std::vector<std::string> prefix;
  for (const std::string& arg : args) {
    prefix.push_back(arg);
    const bool known = std::any_of(program.commands.begin(), program.commands.end(), [&](const Command& command) {
      return begins_with_words(words_of(command.path), prefix);
    });
    if (!known) {
      prefix.pop_back();
      break;
    }
  }
  std::string text;
  for (const std::string& word : prefix) text += (text.empty() ? "" : " ") + word;
  return text;
}

void check_arguments(const Command& command, const Args& args) {
  const auto required =
      static_cast<std::size_t>(std::count_if(command.arguments.begin(), command.arguments.end(),
                                             [](const std::string& name) { return !name.starts_with('['); }));
  if (args.arguments.size() < required) {
    throw UserError(ExitCode::bad_arguments, "`" + command.path + "` needs " + command.arguments[args.arguments.size()],
                    "--help shows what the command takes");
  }
  if (args.arguments.size() > command.arguments.size()) {
    throw UserError(ExitCode::bad_arguments,
                    "`" + command.path + "` does not take \"" + args.arguments[command.arguments.size()] + "\"",
                    "--help shows what the command takes");
  }
}

int run_command(const Program& program, const Command& command, const std::vector<std::string>& rest) {
  if (command.pass_through) {
    Args args;
    args.arguments = rest;
    args.raw = rest;
    return command.run(args);
  }
  if (wants_help(rest)) {
    std::cout << help_text(program, command);
    return 0;
  }
  std::vector<Option> options = command.options;
  for (const Option& option : program.common) {
    const bool own =
        std::any_of(options.begin(), options.end(), [&](const Option& other) { return other.name == option.name; });
    if (!own) options.push_back(option);
  }
  const Args args = parse_options(options, rest);
  check_arguments(command, args);
  return command.run(args);
}

int show_help(const Program& program, const std::vector<std::string>& words) {
  if (words.empty()) {
    std::cout << help_text(program);
    return 0;
  }
  if (words.front() == "--bash-completion") {
    std::cout << bash_completion(program);
    return 0;
  }
  if (words.front() == "--manual" && words.size() == 2) {
    for (const auto& [file, text] : manual_pages(program)) os::write_file_atomic(words[1] + "/" + file, text, 0644);
    return 0;
  }
  const Command* command = find_command(program, words);
  const std::string prefix = known_prefix(program, words);
  if (command != nullptr && command->path == prefix) {
    std::cout << help_text(program, *command);
  } else if (!prefix.empty()) {
    std::cout << help_text(program, prefix);
  } else {
    throw UserError(ExitCode::bad_arguments, "there is no command \"" + words.front() + "\"",
                    "`" + program.name + " help` lists the commands");
  }
  return 0;
}

UserError no_such_command(const Program& program, const std::vector<std::string>& args) {
  const std::string prefix = known_prefix(program, args);
  const std::size_t used = words_of(prefix).size();
  if (prefix.empty()) {
    return UserError(ExitCode::bad_arguments, "there is no command \"" + args.front() + "\"",
                     "`" + program.name + " help` lists the commands");
  }
  const std::string what = used < args.size() && !args[used].starts_with('-')
                               ? "`" + prefix + "` has no command \"" + args[used] + "\""
                               : "`" + prefix + "` needs a further word";
  return UserError(ExitCode::bad_arguments, what, "`" + program.name + " help " + prefix + "` lists what follows it");
}

}  // namespace

std::vector<std::string> words_of(const std::string& path) {
  std::vector<std::string> words;
  std::size_t from = 0;
  while (from < path.size()) {
    const std::size_t to = std::min(path.find(' ', from), path.size());
    words.push_back(path.substr(from, to - from));
    from = to + 1;
  }
  return words;
}

std::string help_text(const Program& program) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Command& command : program.commands) lines.emplace_back(command.path, command.summary);
  lines.emplace_back("help [COMMAND]", "this text, or the options of a command");
  std::string text = program.name + ": " + program.summary + "\n\nUsage: " + program.name +
                     " COMMAND [OPTIONS]\n\nCommands:\n" + two_columns(lines);
  if (!program.common.empty()) {
    std::vector<std::pair<std::string, std::string>> common;
    for (const Option& option : program.common) common.push_back(help_line(option));
    text += "\nOptions of every command:\n" + two_columns(common);
  }
  if (!program.epilogue.empty()) text += "\n" + program.epilogue;
  return text;
}

std::string help_text(const Program& program, const std::string& prefix) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Command& command : program.commands) {
    if (begins_with_words(words_of(command.path), words_of(prefix))) lines.emplace_back(command.path, command.summary);
  }
  return "Usage: " + program.name + " " + prefix + " ... [OPTIONS]\n\nCommands:\n" + two_columns(lines);
}

std::string help_text(const Program& program, const Command& command) {
  std::string usage = "Usage: " + program.name + " " + command.path;
  for (const std::string& argument : command.arguments) usage += " " + argument;
  usage += " [OPTIONS]\n\n" + command.summary + "\n";
  if (!command.details.empty()) usage += "\n" + command.details + "\n";
  if (!command.values.empty()) usage += "\n" + command.arguments.front() + ":\n" + two_columns(command.values);
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Option& option : command.options) lines.push_back(help_line(option));
  for (const Option& option : program.common) {
    const bool own = std::any_of(command.options.begin(), command.options.end(),
                                 [&](const Option& other) { return other.name == option.name; });
    if (!own) lines.push_back(help_line(option));
  }
  lines.emplace_back("-h, --help", "this text");
  return usage + "\nOptions:\n" + two_columns(lines);
}

int dispatch(const Program& program, const std::vector<std::string>& args) {
  // Flags before the command go behind it.
  auto first = args.begin();
  while (first != args.end() && first->size() > 1 && first->starts_with('-')) ++first;
  const std::vector<std::string> leading(args.begin(), first);
  std::vector<std::string> words(first, args.end());
  if (words.empty()) {
    const bool version =
        std::any_of(leading.begin(), leading.end(), [](const auto& arg) { return arg == "--version" || arg == "-V"; });
    if (!wants_help(leading) && !leading.empty() && !version)
      throw UserError(ExitCode::bad_arguments, "a command is missing",
                      "`" + program.name + " help` lists the commands");
    if (!version) return show_help(program, {});
    words = {"version"};
    if (find_command(program, words) == nullptr) {  // the daemons': not worth a command
      std::cout << program.name << " " << PGVIGIL_VERSION << std::endl;
      return 0;
    }
    for (const std::string& arg : leading) {
      if (arg != "--version" && arg != "-V") words.push_back(arg);
    }
  } else {
    words.insert(words.end(), leading.begin(), leading.end());
  }
  if (words.front() == "help") return show_help(program, {words.begin() + 1, words.end()});
  const Command* command = find_command(program, words);
  if (command == nullptr) {
    if (wants_help(words)) return show_help(program, words);
    throw no_such_command(program, words);
  }
  const auto used = static_cast<std::ptrdiff_t>(words_of(command->path).size());
  return run_command(program, *command, {words.begin() + used, words.end()});
}

}  // namespace pgvigil::cli
