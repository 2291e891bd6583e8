// get and set: what the monitor keeps about nodes and formations.
#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/json_text.hpp"

namespace pgvigil::client {

namespace {

const Option name_option{"name", "NODE", "which node (else the one of --pgdata)"};

void show_value(const Args& args, const json::object& value, const std::string& key) {
  if (args.has("json")) {
    print_json(value);
  } else {
    print(cli::cell(value, key) + "\n");
  }
}

json::value chosen_node(Monitor& monitor, const Args& args) {
  return find_node(monitor.current_state(formation_of(args), std::nullopt), args);
}

int get_node(const Args& args, const std::string& key, const std::string& column) {
  Monitor monitor(args);
  const json::value node = chosen_node(monitor, args);
  show_value(args, {{"name", node.at("nodename")}, {key, node.at(column)}}, key);
  return 0;
}

int set_priority(const Args& args) {
  const int priority = cli::parse_integer(args.arguments.front(), "the candidate priority", 0, 100);
  Monitor monitor(args);
  const json::value node = chosen_node(monitor, args);
  monitor.change("select pgvigil.set_node_candidate_priority($1::text, $2::text, $3::int)",
                 {formation_of(args), cli::cell(node, "nodename"), std::to_string(priority)});
  const std::string key = "candidate-priority";
  show_value(args, {{"name", node.at("nodename")}, {key, priority}}, key);
  return 0;
}

int set_quorum(const Args& args) {
  const bool quorum = cli::parse_boolean(args.arguments.front(), "the replication quorum");
  Monitor monitor(args);
  const json::value node = chosen_node(monitor, args);
  monitor.change("select pgvigil.set_node_replication_quorum($1::text, $2::text, $3::boolean)",
                 {formation_of(args), cli::cell(node, "nodename"), quorum ? "true" : "false"});
  const std::string key = "replication-quorum";
  show_value(args, {{"name", node.at("nodename")}, {key, quorum}}, key);
  return 0;
}

// Here --name and the address are what the node shall have; --node or --pgdata says which one it is.
int set_metadata(const Args& args) {
  const auto new_name = args.maybe("name");
  const auto new_host = args.maybe("hostname");
  pg::Param new_port;
  if (args.has("pgport")) new_port = std::to_string(args.integer("pgport", 0, 1, 65535));
  if (!new_name && !new_host && !new_port) {
    throw UserError(ExitCode::bad_arguments, "there is nothing to set", "give --name, --hostname or --pgport");
  }
  std::vector<std::string> selector;
  if (const auto node = args.maybe("node")) selector = {"--name", *node};
  if (const auto pgdata = args.maybe("pgdata"); pgdata && selector.empty()) selector = {"--pgdata", *pgdata};
  if (args.given("formation")) selector.insert(selector.end(), {"--formation", args.get("formation")});
  const Args which = cli::parse_options({pgdata_option(), formation_option(), name_option}, selector);
  Monitor monitor(args);
  const json::value node = find_node(monitor.current_state(formation_of(args), std::nullopt), which);
  monitor.change("select pgvigil.set_node_metadata($1::bigint, $2::text, $3::text, $4::int)",
                 {std::to_string(integer_of(node, "node_id")), new_name, new_host, new_port});
  json::object result{{"node_id", node.at("node_id")},
                      {"name", node.at("nodename")},
                      {"hostname", node.at("nodehost")},
                      {"pgport", node.at("nodeport")}};
  if (new_name) result["name"] = *new_name;
  if (new_host) result["hostname"] = *new_host;
  if (new_port) result["pgport"] = std::stoi(*new_port);
  if (args.has("json")) {
    print_json(result);
  } else {
    print(cli::cell(result, "name") + " " + cli::cell(result, "hostname") + ":" + cli::cell(result, "pgport") + "\n");
  }
  return 0;
}

int get_standbys(const Args& args) {
  Monitor monitor(args);
  const json::array rows = monitor.rows("pgvigil.formation_settings($1::text)", {formation_of(args)});
  for (const json::value& row : rows) {
    if (cli::cell(row, "context") != "formation" || cli::cell(row, "setting") != "number_sync_standbys") continue;
    const std::string key = "number-sync-standbys";
    show_value(args, {{key, cli::parse_integer(cli::cell(row, "value"), key, 0, 1'000'000)}}, key);
    return 0;
  }
  throw UserError(ExitCode::monitor, "the monitor's settings have no number_sync_standbys");
}

int set_standbys(const Args& args) {
  const int number = cli::parse_integer(args.arguments.front(), "number-sync-standbys", 0, 1000);
  Monitor monitor(args);
  monitor.change("select pgvigil.set_formation_number_sync_standbys($1::text, $2::int)",
                 {formation_of(args), std::to_string(number)});
  const std::string key = "number-sync-standbys";
  show_value(args, {{key, number}}, key);
  return 0;
}

int set_preset(const Args& args) {
  const std::string& preset = args.arguments.front();
  Monitor monitor(args);
  monitor.change("select pgvigil.set_formation_timings($1::text, $2::text)", {formation_of(args), preset});
  show_value(args, {{"timings", preset}}, "timings");
  return 0;
}

int set_timing(const Args& args) {
  const std::string key = args.arguments[0];
  const int ms = cli::parse_integer(args.arguments[1], key, 0, 86'400'000);
  Monitor monitor(args);
  monitor.change("select pgvigil.set_formation_timing($1::text, $2::text, $3::int)",
                 {formation_of(args), key, std::to_string(ms)});
  show_value(args, {{key, ms}}, key);
  return 0;
}

}  // namespace

std::vector<Command> settings_commands() {
  const auto node = monitor_options({name_option});
  const auto formation = monitor_options();
  return {
      {"get node candidate-priority",
       "0: never promoted; the highest is preferred",
       node,
       {},
       [](const Args& args) { return get_node(args, "candidate-priority", "candidate_priority"); }},
      {"get node replication-quorum",
       "does the node count for synchronous replication?",
       node,
       {},
       [](const Args& args) { return get_node(args, "replication-quorum", "replication_quorum"); }},
      {"set node candidate-priority", "0 (never promoted) to 100", node, {"PRIORITY"}, set_priority},
      {"set node replication-quorum", "true or false", node, {"BOOLEAN"}, set_quorum},
      {"set node metadata",
       "another name or address for a node",
       monitor_options({{"node", "NODE", "which node, by its present name (else the one of --pgdata)"},
                        {"name", "NAME", "its new name"},
                        {"hostname", "HOST", "its new host"},
                        {"pgport", "PORT", "its new port"}}),
       {},
       set_metadata},
      {"get formation settings", "the settings of a formation and of its nodes", formation, {}, show_settings},
      {"get formation number-sync-standbys",
       "standbys that must have a commit before it is acknowledged",
       formation,
       {},
       get_standbys},
      {"set formation number-sync-standbys",
       "standbys that must have a commit before it is acknowledged",
       formation,
       {"N"},
       set_standbys},
      {"set formation settings",
       "a time limit of the monitor's rules",
       formation,
       {"SETTING", "MILLISECONDS"},
       set_timing,
       "heartbeat_ms (100 to 10000): how often a keeper reports. unhealthy_ms (500 to 600000, at least two "
       "heartbeats): "
       "silence of a keeper and of its PostgreSQL after which the node counts as lost. standby_lost_ms (the same "
       "range): "
       "the same for a standby that the primary waits for. vote_ms (0 to 60000): how long an election waits for a node "
       "of a higher candidate priority. lease_ms (2000 to 600000, whole seconds): how long a primary without "
       "synchronous standbys "
       "takes writes unheard by the monitor. drain_ms (1000 to 3600000): what a planned hand-over, or a command, may "
       "take. `get formation settings` shows them; `set formation timings` sets them together."},
      {"set formation timings",
       "a named set of timings: fast, default or wan",
       formation,
       {"PRESET"},
       set_preset,
       "fast: a heartbeat every 300 ms, lost after 1.2 s; for one site with a quiet network. default: 1 s, 3 s. wan: "
       "2 s, 10 s, a lease of 30 s. The lease is never shortened. A node whose heartbeats come late all the time is "
       "given "
       "longer (2.5 times its usual gap, at most 3 times unhealthy_ms)."},
  };
}

}  // namespace pgvigil::client
