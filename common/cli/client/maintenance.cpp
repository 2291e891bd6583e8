// enable maintenance, disable maintenance.
#include "common/cli/client/commands.hpp"
#include "common/cli/client/outcome.hpp"
#include "common/cli/json_text.hpp"

namespace pgvigil::client {

namespace {

int ask(const Args& args, bool enable) {
  const std::string formation = formation_of(args);
  const int seconds = args.integer("wait", 60, 0, 86400);
  const bool wait = seconds > 0 && !args.has("no-wait");
  Monitor monitor(args);
  const json::value node = find_node(monitor.current_state(formation, std::nullopt), args);
  const std::string name = cli::cell(node, "nodename");
  Follower follower(monitor, args, formation, static_cast<int>(integer_of(node, "group_id")),
                    std::chrono::seconds(wait ? seconds : 10));
  const pg::Result result =
      enable ? monitor.change("select pgvigil.start_maintenance($1::text, $2::text, $3::boolean) as id",
                              {formation, name, args.has("allow-failover") ? "true" : "false"})
             : monitor.change("select pgvigil.stop_maintenance($1::text, $2::text) as id", {formation, name});
  const std::string message = follower.wait_decision(result.integer(0, "id"));
  if (!args.has("json")) note(args, message);
  if (!wait) {
    if (args.has("json")) print_json(follower.nodes());
    return 0;
  }
  // wait_primary: it left maintenance into an election, and is the only one that lives.
  const std::vector<std::string> wanted =
      enable ? std::vector<std::string>{"maintenance"}
             : std::vector<std::string>{"secondary", "primary", "wait_primary", "single"};
  const json::array nodes = follower.wait_node(integer_of(node, "node_id"), wanted);
  if (args.has("json")) {
    print_json(nodes);
  } else {
    note(args, enable ? name + " is in maintenance: its PostgreSQL is yours" : name + " is back in its formation");
  }
  return 0;
}

int enable_maintenance(const Args& args) {
  return ask(args, true);
}

int disable_maintenance(const Args& args) {
  return ask(args, false);
}

}  // namespace

std::vector<Command> maintenance_commands() {
  const Option name{"name", "NODE", "the node (else the one of --pgdata)"};
  const Option wait{"wait", "SECONDS", "how long to wait for the end (60); 0: only until it is decided"};
  const Option no_wait{"no-wait", "", "the same as --wait 0"};
  const Option allow{"allow-failover", "", "the node may be the primary: another one takes over first"};
  return {
      {"enable maintenance",
       "leave a node's PostgreSQL to the operator",
       monitor_options({name, allow, wait, no_wait}),
       {},
       enable_maintenance,
       "The node leaves the synchronous names first. A standby goes on running; a primary is stopped after another "
       "node\n"
       "has taken over. In maintenance the keeper neither starts nor stops PostgreSQL, and the node is never "
       "promoted.\n"
       "Exits with 1 when it is refused, with 12 when the time is over (the monitor goes on all the same)."},
      {"disable maintenance",
       "take the node back: it catches up, with a rewind or a copy when it must",
       monitor_options({name, wait, no_wait}),
       {},
       disable_maintenance,
       "Exits with 1 when it is refused, with 12 when the time is over (the monitor goes on all the same)."},
  };
}

}  // namespace pgvigil::client
