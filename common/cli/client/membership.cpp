// drop node, create formation, drop formation.
#include "common/cli/client/commands.hpp"
#include "common/cli/client/outcome.hpp"
#include "common/cli/json_text.hpp"

namespace pgvigil::client {

namespace {

struct Member {
  std::string formation;
  std::int64_t id;
  int group;
  std::string name;
};

// By name in one formation; by address in all of them, unless one is given.
Member find_member(Monitor& monitor, const Args& args) {
  std::vector<std::string> formations;
  if (args.given("formation") || args.has("name")) {
    formations.push_back(formation_of(args));
  } else {
    const auto all = monitor.query("select f as name from pgvigil.formations() as f");
    for (int i = 0; i < all.rows(); ++i) formations.push_back(all.text(i, "name"));
  }
  for (std::size_t i = 0; i < formations.size(); ++i) {
    const json::array nodes = monitor.current_state(formations[i], std::nullopt);
    try {
      const json::value node = find_node(nodes, args);
      return {formations[i], integer_of(node, "node_id"), static_cast<int>(integer_of(node, "group_id")),
              cli::cell(node, "nodename")};
    } catch (const UserError&) {
      if (i + 1 == formations.size()) throw;
    }
  }
  throw UserError(ExitCode::bad_arguments, "the monitor has no formation", "`pgvigil create formation` makes one");
}

int drop_remote(const Args& args) {
  if (args.has("destroy")) {
    throw UserError(ExitCode::bad_arguments, "--destroy works only on the node's own machine",
                    "give --pgdata there instead of --name or --hostname");
  }
  if (args.has("name") && args.has("hostname")) {
    throw UserError(ExitCode::bad_arguments, "--name and --hostname exclude each other",
                    "give --name, or --hostname and --pgport");
  }
  const bool force = args.has("force");
  const int seconds = args.integer("wait", 60, 0, 86400);
  const bool wait = seconds > 0 && !args.has("no-wait");
  Monitor monitor(args);
  const Member member = find_member(monitor, args);
  Follower follower(monitor, args, member.formation, member.group, std::chrono::seconds(wait ? seconds : 10));
  const auto result = monitor.query("select pgvigil.remove_node($1::bigint, $2::boolean) as id",
                                    {std::to_string(member.id), force ? "true" : "false"});
  // NULL: the row is gone already.
  if (const auto request = result.maybe(0, "id"); request && wait) {
    follower.wait_decision(std::stoll(*request));
    follower.wait_gone(member.id);
  }
  if (args.has("json")) {
    print_json(json::object{{"node_id", member.id}, {"name", member.name}, {"dropped", wait || force}});
  } else {
    note(args, member.name + (wait || force ? " is dropped" : " will be dropped"));
  }
  return 0;
}

int drop_node(const Args& args) {
  if (args.has("name") || args.has("hostname")) return drop_remote(args);
  if (!args.has("pgdata")) {
    throw UserError(ExitCode::bad_arguments, "it is not said which node to drop",
                    "give --pgdata for the local node, or --name, or --hostname and --pgport");
  }
  const auto config = find_config(args);
  const bool is_monitor = config && config->role == config::Role::monitor;
  exec_daemon(is_monitor ? "pgvigil-monitor" : "pgvigil-keeper", "drop", args.raw);
}

int create_formation(const Args& args) {
  if (args.has("enable-secondary") && args.has("disable-secondary")) {
    throw UserError(ExitCode::bad_arguments, "--enable-secondary and --disable-secondary exclude each other");
  }
  if (args.get("kind", "pgsql") != "pgsql") {
    throw UserError(ExitCode::bad_arguments, "there are no formations of the kind \"" + args.get("kind") + "\"",
                    "the only kind is pgsql");
  }
  const std::string name = args.require("formation");
  const int standbys = args.integer("number-sync-standbys", 0, 0, 1000);
  const std::string dbname = args.get("dbname", "postgres");
  const bool secondary = !args.has("disable-secondary");
  Monitor monitor(args);
  monitor.query("select pgvigil.create_formation($1::text, $2::text, $3::boolean, $4::int)",
                {name, dbname, secondary ? "true" : "false", std::to_string(standbys)});
  if (args.has("json")) {
    print_json(json::object{{"formation", name},
                            {"kind", "pgsql"},
                            {"dbname", dbname},
                            {"opt_secondary", secondary},
                            {"number_sync_standbys", standbys}});
  } else {
    note(args, "formation \"" + name + "\" is made");
  }
  return 0;
}

int drop_formation(const Args& args) {
  const std::string name = args.require("formation");
  Monitor monitor(args);
  monitor.query("select pgvigil.drop_formation($1::text)", {name});
  note(args, "formation \"" + name + "\" is dropped");
  return 0;
}

}  // namespace

std::vector<Command> membership_commands() {
  return {
      {"drop node",
       "take a node out of its formation",
       monitor_options({{"name", "NODE", "which node"},
                        {"hostname", "HOST", "which node, with --pgport"},
                        {"pgport", "PORT", "5432 when it is not given"},
                        {"force", "", "remove it at once, without its keeper (it is gone for good)"},
                        {"destroy", "", "local node: remove its data directory too"},
                        {"wait", "SECONDS", "how long to wait for the end (60)"},
                        {"no-wait", "", "the same as --wait 0"}}),
       {},
       drop_node,
       "With --pgdata alone it is the local node: its keeper does it. A primary hands over first."},
      {"create formation",
       "make a formation",
       monitor_options(
           {{"kind", "KIND", "pgsql"},
            {"dbname", "NAME", "database of its nodes (postgres)"},
            {"enable-secondary", "", "it may have secondaries (this is so anyway)"},
            {"disable-secondary", "", "it may not have secondaries"},
            {"number-sync-standbys", "N", "standbys that must have a commit before it is acknowledged (0)"}}),
       {},
       create_formation},
      {"drop formation", "remove a formation that has no nodes", monitor_options(), {}, drop_formation},
  };
}

}  // namespace pgvigil::client
