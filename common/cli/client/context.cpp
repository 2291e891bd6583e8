#include "common/cli/client/context.hpp"

#include <algorithm>
#include <iostream>
#include <set>

#include "common/cli/json_text.hpp"
#include "common/os/daemon.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

const Option& pgdata_option() {
  static const Option option{"pgdata", "DIR", "data directory of the local node; finds its configuration", {"PGDATA"}};
  return option;
}

const Option& formation_option() {
  static const Option option{"formation", "NAME", "formation (the node's own, else \"default\")"};
  return option;
}

const Option& group_option() {
  static const Option option{"group", "N", "group of the formation"};
  return option;
}

const Option& json_option() {
  static const Option option{"json", "", "print JSON"};
  return option;
}

std::vector<Option> monitor_options(std::vector<Option> more) {
  std::vector<Option> options{
      pgdata_option(),
      {"monitor", "URI", "connection string of the monitor's database", {"PGVIGIL_MONITOR", "PG_AUTOCTL_MONITOR"}},
      {"monitor-password-file", "FILE",
       "file with the password for it; otherwise $PGPASSWORD or $PGPASSFILE as with psql"},
      formation_option()};
  options.insert(options.end(), more.begin(), more.end());
  options.push_back(json_option());
  return options;
}

std::optional<config::Config> find_config(const Args& args) {
  const auto pgdata = args.maybe("pgdata");
  if (!pgdata) return std::nullopt;
  const auto file = config::config_path_for(*pgdata);
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  return config::load(file);
}

config::Config load_config(const Args& args) {
  const auto pgdata = args.maybe("pgdata");
  if (!pgdata) {
    throw UserError(ExitCode::bad_arguments, "it is not said which node is meant", "give --pgdata, or set PGDATA");
  }
  if (auto found = find_config(args)) return *found;
  throw UserError(
      ExitCode::bad_config,
      "there is no configuration for " + *pgdata + ": " + config::config_path_for(*pgdata).string() + " does not exist",
      "`pgvigil create monitor` or `pgvigil create postgres` makes it; run this command as the user who owns the node");
}

config::Config load_own_config(const Args& args) {
  const config::Config config = load_config(args);
  os::become_owner_of(config.state_directory);
  return config;
}

std::string formation_of(const Args& args) {
  if (const auto given = args.maybe("formation")) return *given;
  const auto config = find_config(args);
  return config && config->role == config::Role::keeper ? config->formation : "default";
}

std::optional<int> group_of(const Args& args) {
  return args.has("group") ? std::optional(args.integer("group", 0, 0, 1'000'000)) : std::nullopt;
}

pg::Param group_param(std::optional<int> group) {
  return group ? pg::Param(std::to_string(*group)) : std::nullopt;
}

int one_group(Monitor& monitor, const Args& args) {
  if (const auto given = group_of(args)) return *given;
  const std::string formation = formation_of(args);
  const auto config = find_config(args);
  if (config && config->role == config::Role::keeper && config->formation == formation) return config->group;
  std::set<std::int64_t> groups;
  for (const json::value& node : monitor.current_state(formation, std::nullopt))
    groups.insert(integer_of(node, "group_id"));
  if (groups.size() > 1) {
    throw UserError(ExitCode::bad_arguments,
                    "formation \"" + formation + "\" has " + std::to_string(groups.size()) +
                        " groups, and it is not said which one is meant",
                    "give --group; `pgvigil show state` lists them");
  }
  return groups.empty() ? 0 : static_cast<int>(*groups.begin());
}

json::value find_node(const json::array& nodes, const Args& args) {
  std::string name = args.get("name");
  std::string host = args.get("hostname");
  std::string port = args.get("pgport");
  if (name.empty() && host.empty()) {
    const auto config = find_config(args);
    if (!config || config->role != config::Role::keeper) {
      throw UserError(ExitCode::bad_arguments, "it is not said which node is meant",
                      "give --name, or --pgdata of a data node; `pgvigil show state` lists the names");
    }
    // The monitor may have chosen or changed the name; the address is what the node itself knows for certain.
    host = config->hostname;
    port = std::to_string(config->port);
  }
  if (port.empty()) port = "5432";
  for (const json::value& node : nodes) {
    const bool same = name.empty() ? cli::cell(node, "nodehost") == host && cli::cell(node, "nodeport") == port
                                   : cli::cell(node, "nodename") == name;
    if (same) return node;
  }
  const std::string wanted = name.empty() ? host + ":" + port : "\"" + name + "\"";
  throw UserError(ExitCode::bad_arguments,
                  "there is no node " + wanted + " in formation \"" + formation_of(args) + "\"",
                  "`pgvigil show state` lists the nodes");
}

std::int64_t integer_of(const json::value& row, std::string_view key) {
  const json::object* object = row.if_object();
  const json::value* found = object == nullptr ? nullptr : object->if_contains(key);
  if (found == nullptr || !found->is_number()) {
    throw UserError(ExitCode::monitor, "the monitor's answer has no number \"" + std::string(key) + "\"",
                    "are this program and the monitor of the same version?");
  }
  return found->to_number<std::int64_t>();
}

void note(const Args& args, const std::string& text) {
  if (!args.has("quiet")) std::cerr << text << std::endl;
}

void print_json(const json::value& value) {
  print(cli::pretty(value));
}

void print(const std::string& text) {
  // SIGPIPE is ignored: without this, `--watch | head` would never end.
  if (!(std::cout << text << std::flush)) throw UserError(ExitCode::internal, "cannot write to standard output");
}

}  // namespace pgvigil::client
