// drop node, create formation, drop formation, enable secondary, disable secondary.
#include <filesystem>
#include <thread>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/local.hpp"
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

int wait_seconds(const Args& args) {
  return args.has("no-wait") ? 0 : args.integer("wait", 60, 0, 86400);
}

// By the monitor, and with --wait until its keeper has carried it out.
void remove_member(Monitor& monitor, const Args& args, const Member& member) {
  const int seconds = wait_seconds(args);
  Follower follower(monitor, args, member.formation, member.group, std::chrono::seconds(seconds > 0 ? seconds : 10));
  const auto result = monitor.change("select pgvigil.remove_node($1::bigint, $2::boolean) as id",
                                     {std::to_string(member.id), args.has("force") ? "true" : "false"});
  // NULL: the row is gone already.
  if (const auto request = result.maybe(0, "id"); request && seconds > 0) {
    follower.wait_decision(std::stoll(*request));
    follower.wait_gone(member.id);
  }
}

void tell(const Args& args, const Member& member) {
  const bool dropped = wait_seconds(args) > 0 || args.has("force");
  if (args.has("json")) {
    print_json(json::object{{"node_id", member.id}, {"name", member.name}, {"dropped", dropped}});
  } else {
    note(args, member.name + (dropped ? " is dropped" : " will be dropped"));
  }
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
  Monitor monitor(args);
  const Member member = find_member(monitor, args);
  remove_member(monitor, args, member);
  tell(args, member);
  return 0;
}

// The monitor's half of dropping the local node. False: it knows no such node (any more). A number alone says nothing:
// another monitor has given it to another node.
bool drop_at_monitor(const Args& args, const config::Config& config, std::int64_t id) {
  Monitor monitor(args);
  for (const json::value& row : monitor.current_state(config.formation, std::nullopt)) {
    if (integer_of(row, "node_id") != id) continue;
    const std::string there = cli::cell(row, "nodehost") + ":" + cli::cell(row, "nodeport");
    const std::string here = config.hostname + ":" + std::to_string(config.port);
    if (there != here) {
      throw UserError(ExitCode::bad_state,
                      "node " + std::to_string(id) + " of this monitor is " + cli::cell(row, "nodename") + " at " +
                          there + ", not the local one (" + here + ")",
                      "is it the right monitor, and node.hostname what `pgvigil show state` says? With --force only "
                      "what is here is removed");
    }
    const Member member{config.formation, id, static_cast<int>(integer_of(row, "group_id")),
                        cli::cell(row, "nodename")};
    remove_member(monitor, args, member);
    tell(args, member);
    return true;
  }
  return false;
}

void wait_for_keeper(const Args& args, const config::Config& config) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(wait_seconds(args));
  while (daemon_pid(config)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      throw UserError(ExitCode::internal, "the keeper of " + config.pgdata + " has not ended yet",
                      "stop it with `pgvigil stop`, then run this again: it removes what is left here");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// First by the monitor, while the keeper lives to carry it out; then what is left here.
int drop_local(const Args& args, const config::Config& config) {
  std::vector<std::string> rest{"--pgdata", config.pgdata};
  if (args.has("destroy")) rest.push_back("--destroy");
  if (wait_seconds(args) == 0 && (args.has("force") || args.has("destroy"))) {
    throw UserError(ExitCode::bad_arguments,
                    "what is here is removed when the keeper has ended, and that takes a while",
                    "leave out --no-wait, or give it without --force and --destroy");
  }
  std::error_code error;
  const bool known = std::filesystem::exists(std::filesystem::path(config.state_directory) / "keeper.json", error);
  const json::object state = known ? local_state(config) : json::object{};
  if (known && cli::cell(state, "current_role") != "dropped") {
    const bool force = args.has("force");
    if (!force && !daemon_pid(config)) {
      throw UserError(
          ExitCode::bad_arguments, "the keeper of " + config.pgdata + " does not run, and only it can leave in order",
          "start it with `pgvigil run`, or give --force: the node is removed as it is, and nobody takes over first");
    }
    try {
      // Removed while its keeper was away: the keeper's state does not say so.
      if (!drop_at_monitor(args, config, integer_of(state, "nodeId")) || force) rest.push_back("--force");
    } catch (const UserError& failure) {
      if (!force || failure.code == ExitCode::bad_arguments) throw;
      if (args.has("json"))
        print_json(json::object{
            {"node_id", integer_of(state, "nodeId")}, {"name", cli::cell(state, "name")}, {"dropped", false}});
      note(args, std::string(failure.what()) +
                     "; what is here is removed all the same: `pgvigil drop node --force --name " +
                     cli::cell(state, "name") + "` tells the monitor later");
      rest.push_back("--force");
    }
    if (wait_seconds(args) == 0) return 0;
  }
  if (known && cli::cell(state, "current_role") == "dropped")
    tell(args, {config.formation, integer_of(state, "nodeId"), config.group, cli::cell(state, "name")});
  wait_for_keeper(args, config);
  exec_daemon("pgvigil-keeper", "drop", rest);
}

int drop_node(const Args& args) {
  if (args.has("name") || args.has("hostname")) return drop_remote(args);
  if (!args.has("pgdata")) {
    throw UserError(ExitCode::bad_arguments, "it is not said which node to drop",
                    "give --pgdata for the local node, or --name, or --hostname and --pgport");
  }
  const config::Config config = load_own_config(args);
  if (config.role == config::Role::monitor) {
    throw UserError(ExitCode::bad_arguments, config.pgdata + " is the monitor's",
                    "`pgvigil drop monitor` removes it; --name says which node to drop");
  }
  return drop_local(args, config);
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
  monitor.change("select pgvigil.create_formation($1::text, $2::text, $3::boolean, $4::int)",
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

int set_secondary(const Args& args, bool allowed) {
  const std::string name = formation_of(args);
  Monitor monitor(args);
  monitor.change("select pgvigil.set_formation_secondary($1::text, $2::boolean)", {name, allowed ? "true" : "false"});
  if (args.has("json")) {
    print_json(json::object{{"formation", name}, {"opt_secondary", allowed}});
  } else {
    note(args, "formation \"" + name + "\" takes " + (allowed ? "secondaries" : "no secondaries"));
  }
  return 0;
}

int drop_formation(const Args& args) {
  const std::string name = args.require("formation");
  Monitor monitor(args);
  monitor.change("select pgvigil.drop_formation($1::text)", {name});
  if (args.has("json")) {
    print_json(json::object{{"formation", name}, {"dropped", true}});
  } else {
    note(args, "formation \"" + name + "\" is dropped");
  }
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
                        {"destroy", "", "local node: empty its PGDATA and tablespaces too"},
                        {"wait", "SECONDS", "how long to wait for the end (60)"},
                        {"no-wait", "", "the same as --wait 0"}}),
       {},
       drop_node,
       "A primary hands over first. With --pgdata alone it is the local node, and what pgvigil keeps here goes too; "
       "PGDATA "
       "stays, as a stopped PostgreSQL, without --destroy. With --force the monitor need not answer."},
      {"create formation",
       "make a formation",
       monitor_options(
           {{"kind", "KIND", "pgsql"},
            {"dbname", "NAME", "database of its nodes (postgres)"},
            {"enable-secondary", "", "it may have secondaries (this is so anyway)"},
            {"disable-secondary", "", "it may not have secondaries until `enable secondary`"},
            {"number-sync-standbys", "N", "standbys that must have a commit before it is acknowledged (0)"}}),
       {},
       create_formation},
      {"drop formation", "remove a formation that has no nodes", monitor_options(), {}, drop_formation},
      {"enable secondary",
       "let the groups of a formation have more than one node",
       monitor_options(),
       {},
       [](const Args& args) { return set_secondary(args, true); }},
      {"disable secondary",
       "let each group of a formation have one node and no more",
       monitor_options(),
       {},
       [](const Args& args) { return set_secondary(args, false); },
       "Refused while there are secondaries: drop those first."},
  };
}

}  // namespace pgvigil::client
