#include "common/cli/manual.hpp"

#include <algorithm>
#include <set>

namespace pgvigil::cli {

namespace {

std::string joined(const std::string& words, char by) {
  std::string text = words;
  std::replace(text.begin(), text.end(), ' ', by);
  return text;
}

// The long name, and the short one or "".
std::pair<std::string, std::string> names_of(const Option& option) {
  const std::size_t comma = option.name.find(',');
  if (comma == std::string::npos) return {option.name, ""};
  return {option.name.substr(0, comma), option.name.substr(comma + 1)};
}

std::vector<Option> options_of(const Program& program, const Command& command) {
  std::vector<Option> options = command.options;
  for (const Option& option : program.common) {
    if (std::none_of(options.begin(), options.end(), [&](const Option& own) { return own.name == option.name; }))
      options.push_back(option);
  }
  return options;
}

// --- man(7)

std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
      out += std::string("\\&") + c;
    } else {
      out += c;
    }
  }
  return out;
}

std::string bold(const std::string& text) {
  return "\\fB" + roff(text) + "\\fR";
}
std::string italic(const std::string& text) {
  return "\\fI" + roff(text) + "\\fR";
}
std::string page_name(const Program& program, const std::string& path) {
  return program.name + (path.empty() ? "" : "-" + joined(path, '-'));
}
std::string reference(const std::string& page) {
  return bold(page) + "(1)";
}

std::string head(const Program& program, const std::string& page, const std::string& summary) {
  std::string title = page;
  std::transform(title.begin(), title.end(), title.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return ".TH \"" + roff(title) + "\" 1 \"\" \"" + program.name + " " PGVIGIL_VERSION "\" \"pgvigil\"\n.SH NAME\n" +
         roff(page) + " \\- " + roff(summary) + "\n";
}

std::string option_entry(const Option& option) {
  const auto [name, letter] = names_of(option);
  std::string text = ".TP\n" + (letter.empty() ? "" : bold("-" + letter) + ", ") + bold("--" + name);
  if (!option.value.empty()) text += " " + italic(option.value);
  text += "\n" + roff(option.help) + "\n";
  for (std::size_t i = 0; i < option.environment.size(); ++i)
    text += (i == 0 ? "(without it: " : "or ") + bold("$" + option.environment[i]) +
            (i + 1 == option.environment.size() ? ")\n" : "\n");
  return text;
}

std::string command_page(const Program& program, const Command& command) {
  std::string text = head(program, page_name(program, command.path), command.summary) + ".SH SYNOPSIS\n" +
                     bold(program.name + " " + command.path);
  for (const std::string& argument : command.arguments) text += " " + italic(argument);
  text += " [" + italic("OPTIONS") + "]\n";
  if (!command.details.empty()) text += ".SH DESCRIPTION\n" + roff(command.details) + "\n";
  if (!command.values.empty()) text += ".SH " + roff(command.arguments.front()) + "\n";
  for (const auto& [value, meaning] : command.values) text += ".TP\n" + bold(value) + "\n" + roff(meaning) + "\n";
  text += ".SH OPTIONS\n";
  if (command.same_as.empty()) {
    for (const Option& option : options_of(program, command)) text += option_entry(option);
    text += ".TP\n" + bold("-h") + ", " + bold("--help") + "\nthe same in short\n";
  } else {
    text += "Those of " + reference(joined(command.same_as, '-')) + ", which does it.\n";
  }
  return text + ".SH EXIT STATUS\n" + "See " + reference("pgvigil") + ".\n.SH SEE ALSO\n" + reference(program.name) +
         "\n";
}

std::string program_page(const Program& program) {
  std::string text = head(program, program.name, program.summary) + ".SH SYNOPSIS\n" + bold(program.name) + " " +
                     italic("COMMAND") + " [" + italic("OPTIONS") + "]\n.br\n" + bold(program.name + " help") + " [" +
                     italic("COMMAND") + "]\n.SH COMMANDS\n";
  for (const Command& command : program.commands) {
    text += ".TP\n" + bold(command.path);
    for (const std::string& argument : command.arguments) text += " " + italic(argument);
    text += "\n" + roff(command.summary) + ": " + reference(page_name(program, command.path)) + "\n";
  }
  if (!program.common.empty()) text += ".SH OPTIONS OF EVERY COMMAND\n";
  for (const Option& option : program.common) text += option_entry(option);
  std::set<std::string> variables;
  for (const Command& command : program.commands) {
    for (const Option& option : command.options) variables.insert(option.environment.begin(), option.environment.end());
  }
  if (!variables.empty()) {
    text += ".SH ENVIRONMENT\nEach stands for an option that is not given:\n";
    for (const std::string& variable : variables) text += bold(variable) + "\n";
  }
  text += ".SH FILES\n.TP\n" + italic("/etc/pgvigil/NAME.toml") + ", " + italic("~/.config/pgvigil/NAME.toml") +
          "\nthe configuration of a node; made by " + bold("create") + "\n.TP\n" + italic("/var/lib/pgvigil/NAME") +
          ", " + italic("~/.local/state/pgvigil/NAME") + "\nits state, passwords and PostgreSQL's log\n";
  if (!program.epilogue.empty()) text += ".SH NOTES\n" + roff(program.epilogue);
  return text + ".SH SEE ALSO\n" + reference("pgvigil") + ", " + reference("pgvigil-monitor") + ", " +
         reference("pgvigil-keeper") + "\n";
}

// --- bash

// What may stand behind a prefix of commands, and behind a whole one.
std::map<std::string, std::set<std::string>> next_words(const Program& program) {
  std::map<std::string, std::set<std::string>> next;
  for (const Command& command : program.commands) {
    std::string prefix;
    for (const std::string& word : words_of(command.path)) {
      next[prefix].insert(word);
      prefix += (prefix.empty() ? "" : " ") + word;
    }
    next[prefix];
  }
  next[""].insert("help");
  return next;
}

std::string option_words(const Program& program, const Command& command) {
  std::string text;
  for (const Option& option : options_of(program, command)) {
    const auto [name, letter] = names_of(option);
    text += " --" + name + (option.value.empty() ? "" : "=" + option.value);
    if (!letter.empty()) text += " -" + letter;
  }
  for (const auto& [value, meaning] : command.values) text += " " + value;
  return text + " --help";
}

std::string identifier(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string table_function(const std::string& program) {
  return "_" + identifier(program) + "_table";
}

// "--pgdata=DIR": how an option's value is completed is told by its name in the help.
constexpr const char* completer = R"BASH(
_PROGRAM_complete() {
  local word path= list= kind=
  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
    [[ $word != help || -n $path ]] || continue
    if ! _PROGRAM_table "${path:+$path }$word" >/dev/null; then
      [[ -n $path || $word == -* ]] || return 0  # no such command
      break
    fi
    path=${path:+$path }$word
  done
  list=$(_PROGRAM_table "$path")
  case $before in
    --*) kind=$(printf '%s\n' $list | sed -n "s/^$before=//p") ;;
  esac
  case $kind in
    '') COMPREPLY=($(compgen -W "$(printf '%s\n' $list | sed 's/=.*//')" -- "$current")) ;;
    DIR) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$current")) ;;
    FILE) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")) ;;
    BOOL) COMPREPLY=($(compgen -W 'true false' -- "$current")) ;;
  esac
}
complete -F _PROGRAM_complete )BASH";

}  // namespace

std::map<std::string, std::string> manual_pages(const Program& program) {
  std::map<std::string, std::string> pages{{program.name + ".1", program_page(program)}};
  for (const Command& command : program.commands)
    pages[page_name(program, command.path) + ".1"] = command_page(program, command);
  return pages;
}

std::string bash_completion(const Program& program) {
  std::string text = "# " + program.name + " " PGVIGIL_VERSION ", written from its own table of commands.\n" +
                     table_function(program.name) + "() {\n  case $1 in\n";
  for (const auto& [path, words] : next_words(program)) {
    const auto command = std::find_if(program.commands.begin(), program.commands.end(),
                                      [p = path](const Command& one) { return one.path == p; });
    text += "    '" + path + "') ";
    if (command != program.commands.end() && !command->same_as.empty()) {
      const auto other = words_of(command->same_as);
      text += table_function(other.front()) + " '" + command->same_as.substr(other.front().size() + 1) + "' ;;\n";
      continue;
    }
    text += "echo '";
    for (const std::string& word : words) text += word + " ";
    if (command != program.commands.end()) text += option_words(program, *command);
    text += "' ;;\n";
  }
  text += "    *) return 1 ;;\n  esac\n}\n";
  std::string script = completer;
  const std::string placeholder = "PROGRAM";
  for (std::size_t at = script.find(placeholder); at != std::string::npos; at = script.find(placeholder))
    script.replace(at, placeholder.size(), identifier(program.name));
  return text + script + program.name + "\n";
}

}  // namespace pgvigil::cli
