// config get|set|check, version.
#include <libpq-fe.h>
#include <unistd.h>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/json_text.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

namespace {

json::value typed(const std::string& key, const std::string& value) {
  switch (config::type_of(key)) {
    case config::Type::integer: return json::parse(value);
    case config::Type::boolean: return value == "true";
    case config::Type::text: break;
  }
  return json::string(value);
}

json::object config_object(const config::Config& config) {
  json::object all;
  for (const std::string& key : config::keys()) {
    const std::size_t dot = key.find('.');
    json::value& section = all[key.substr(0, dot)];
    if (!section.is_object()) section = json::object{};
    section.as_object()[key.substr(dot + 1)] = typed(key, config::get(config, key));
  }
  return all;
}

std::string hint_for_password(const std::string& key) {
  if (key == "monitor.uri")
    return "keep it in a file of mode 0600; `pgvigil config set monitor.password_file` names it";
  return "the daemon takes it from PGPASSWORD, or from the .pgpass of the user who runs it";
}

void refuse_password(const std::string& key, const std::string& value) {
  if (value.empty() || (key != "monitor.uri" && key != "monitor.database_uri")) return;
  bool has_password = false;
  try {
    has_password = pg::parse_conninfo(value).contains("password");
  } catch (const Error& error) {
    throw UserError(ExitCode::bad_config, key + " is " + error.what());
  }
  if (!has_password) return;
  throw UserError(ExitCode::bad_config,
                  key + " must not hold a password: this file, and what is printed of it, is no place for one",
                  hint_for_password(key));
}

// As it is shown: a password that somebody has written there by hand is not.
config::Config load_for_show(const Args& args) {
  config::Config config = load_config(args);
  for (std::string* uri : {&config.monitor_uri, &config.database_uri}) {
    try {
      if (pg::parse_conninfo(*uri).contains("password")) *uri = pg::without_password(*uri);
    } catch (const Error&) {  // `config check` says why it cannot be used
    }
  }
  return config;
}

int get(const Args& args) {
  const config::Config config = load_for_show(args);
  if (args.arguments.empty()) {
    print(args.has("json") ? cli::pretty(config_object(config)) : config::to_toml(config));
    return 0;
  }
  const std::string key = args.arguments.front();
  const std::string value = config::get(config, key);
  if (args.has("json")) {
    print_json(json::object{{key, typed(key, value)}});
  } else {
    print(value + "\n");
  }
  return 0;
}

int set(const Args& args) {
  config::Config config = load_own_config(args);
  const std::string key = args.arguments[0];
  if (key == "node.role" || key == "postgresql.pgdata") {
    throw UserError(ExitCode::bad_arguments, key + " is fixed when the node is made", "`pgvigil create` makes another");
  }
  refuse_password(key, args.arguments[1]);
  config::set(config, key, args.arguments[1]);
  config::save(config);
  const std::string value = config::get(config, key);
  if (args.has("json")) {
    print_json(json::object{{key, typed(key, value)}});
  } else {
    print(value + "\n");
  }
  note(args,
       "written to " + config.file.string() + "; `pgvigil reload` or the next start of the daemon makes it count");
  return 0;
}

// What is wrong around a file that can be read; one sentence each.
std::vector<std::string> problems_of(const config::Config& config) {
  std::vector<std::string> problems;
  const auto missing = [&](const std::string& what, const std::filesystem::path& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) problems.push_back(what + " " + path.string() + " does not exist");
  };
  if (config.database_uri.empty()) {
    missing("the data directory", config.pgdata);
    if (!config.bindir.empty()) missing("the program", std::filesystem::path(config.bindir) / "postgres");
  }
  missing("the state directory", config.state_directory);
  const auto uri = [&](const char* key, const std::string& value) {
    if (value.empty()) return;
    try {
      if (pg::parse_conninfo(value).contains("password")) {
        problems.push_back(std::string(key) + " holds a password: keep it in a file of its own");
      }
    } catch (const Error& error) {
      problems.push_back(std::string(key) + " is " + error.what());
    }
  };
  uri("monitor.uri", config.monitor_uri);
  uri("monitor.database_uri", config.database_uri);
  if (config.role == config::Role::keeper && config.monitor_uri.empty()) problems.push_back("monitor.uri is empty");
  if (!config.monitor_password_file.empty()) {
    try {
      os::read_secret_file(config.monitor_password_file);
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  return problems;
}

int check(const Args& args) {
  const config::Config config = load_config(args);
  const auto problems = problems_of(config);
  if (args.has("json")) {
    json::array list;
    for (const std::string& problem : problems) list.push_back(json::string(problem));
    print_json(json::object{{"file", config.file.string()}, {"ok", problems.empty()}, {"problems", list}});
  } else {
    for (const std::string& former : config.without_effect) print(former + " has no effect any more\n");
    for (const std::string& problem : problems) print(config.file.string() + ": " + problem + "\n");
    if (problems.empty()) print(config.file.string() + ": ok\n");
  }
  return static_cast<int>(problems.empty() ? ExitCode::ok : ExitCode::bad_config);
}

int version(const Args& args) {
  const int libpq = PQlibVersion();
  const std::string libpq_text = std::to_string(libpq / 10000) + "." + std::to_string(libpq % 10000);
  if (args.has("json")) {
    print_json(json::object{{"pgvigil", PGVIGIL_VERSION}, {"pg_autoctl", PGVIGIL_VERSION}, {"libpq", libpq_text}});
  } else {
    print("pgvigil " PGVIGIL_VERSION " (libpq " + libpq_text + ")\n");
  }
  return 0;
}

}  // namespace

std::vector<Command> config_commands() {
  const std::vector<Option> options{pgdata_option(), json_option()};
  return {
      {"config get", "a key of the node's configuration, or all of it", options, {"[SECTION.KEY]"}, get},
      {"config set",
       "change a key of the node's configuration",
       options,
       {"SECTION.KEY", "VALUE"},
       set,
       "Most count after `pgvigil reload`, the rest from the daemon's next start on: its log says which.",
       false,
       "",
       config::explained()},
      {"config check", "can the node's configuration be used?", options, {}, check, "Exits with 2 when it cannot."},
      {"version", "the version of this program", {json_option()}, {}, version},
  };
}

}  // namespace pgvigil::client
