#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <cstdlib>

#include "common/cli/cli.hpp"

namespace pgvigil::cli {

namespace po = boost::program_options;

namespace {

std::string long_name(const Option& option) {
  return option.name.substr(0, option.name.find(','));
}

UserError usage(const std::string& what) {
  return UserError(ExitCode::bad_arguments, what, "--help shows what the command takes");
}

po::options_description description_of(const std::vector<Option>& options) {
  po::options_description description;
  for (const Option& option : options) {
    if (option.value.empty()) {
      description.add_options()(option.name.c_str(), option.help.c_str());
    } else {
      description.add_options()(option.name.c_str(), po::value<std::string>(), option.help.c_str());
    }
  }
  return description;
}

// Boost's own texts differ from one kind of error to the next; these name the option as it was written.
UserError translated(const po::error_with_option_name& error) {
  const std::string name = error.get_option_name();
  if (dynamic_cast<const po::unknown_option*>(&error) != nullptr) return usage("there is no option " + name + " here");
  if (const auto* syntax = dynamic_cast<const po::invalid_syntax*>(&error)) {
    switch (syntax->kind()) {
      case po::invalid_syntax::missing_parameter:
      case po::invalid_syntax::empty_adjacent_parameter: return usage("option " + name + " needs a value");
      case po::invalid_syntax::extra_parameter: return usage("option " + name + " takes no value");
      default: break;
    }
  }
  return usage(error.what());
}

}  // namespace

Args parse_options(const std::vector<Option>& options, const std::vector<std::string>& args) {
  const po::options_description description = description_of(options);
  Args parsed;
  parsed.raw = args;
  try {
    const int style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    const po::parsed_options found = po::command_line_parser(args).options(description).style(style).run();
    for (const po::option& option : found.options) {
      if (option.position_key >= 0) {
        parsed.arguments.insert(parsed.arguments.end(), option.value.begin(), option.value.end());
      } else if (!option.value.empty() && option.value.front().empty()) {
        // A script's variable that is not set must not mean "the local node".
        throw usage("option --" + option.string_key + " needs a value, and \"\" is none");
      } else {
        parsed.values_[option.string_key].push_back(option.value.empty() ? "" : option.value.front());
      }
    }
  } catch (const po::error_with_option_name& error) {
    throw translated(error);
  } catch (const po::error& error) {
    throw usage(error.what());
  }
  for (const Option& option : options) {
    for (const std::string& variable : option.environment) {
      const char* value = std::getenv(variable.c_str());
      if (value != nullptr && *value != '\0') {
        parsed.environment_.emplace(long_name(option), value);
        break;
      }
    }
  }
  return parsed;
}

bool Args::given(const std::string& name) const {
  return values_.contains(name);
}

bool Args::has(const std::string& name) const {
  return given(name) || environment_.contains(name);
}

int Args::count(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? 0 : static_cast<int>(found->second.size());
}

std::optional<std::string> Args::maybe(const std::string& name) const {
  if (const auto found = values_.find(name); found != values_.end()) return found->second.back();
  if (const auto found = environment_.find(name); found != environment_.end()) return found->second;
  return std::nullopt;
}

std::string Args::get(const std::string& name, const std::string& fallback) const {
  return maybe(name).value_or(fallback);
}

std::string Args::require(const std::string& name) const {
  auto value = maybe(name);
  if (!value || value->empty()) throw usage("--" + name + " is missing");
  return *value;
}

int Args::integer(const std::string& name, int fallback, int min, int max) const {
  const auto value = maybe(name);
  return value ? parse_integer(*value, "--" + name, min, max) : fallback;
}

bool Args::boolean(const std::string& name, bool fallback) const {
  const auto value = maybe(name);
  return value ? parse_boolean(*value, "--" + name) : fallback;
}

std::vector<Option> log_options() {
  return {{"verbose,v", "", "log all that is of interest for a search of faults"},
          {"quiet,q", "", "log warnings only"}};
}

std::string log_level(const Args& args, const std::string& otherwise) {
  return args.has("verbose") ? "debug" : args.has("quiet") ? "warn" : otherwise;
}

int parse_integer(const std::string& text, const std::string& what, int min, int max) {
  int number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || number < min || number > max) {
    throw usage(what + " must be a whole number from " + std::to_string(min) + " to " + std::to_string(max) +
                ", not \"" + text + "\"");
  }
  return number;
}

bool parse_boolean(const std::string& text, const std::string& what) {
  std::string word = text;
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (word == "true" || word == "on" || word == "yes" || word == "1") return true;
  if (word == "false" || word == "off" || word == "no" || word == "0") return false;
  throw usage(what + " must be true or false, not \"" + text + "\"");
}

}  // namespace pgvigil::cli
