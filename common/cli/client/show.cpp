// What there is: states, events, settings.
#include <unistd.h>

#include <algorithm>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/client/fresh_events.hpp"
#include "common/cli/client/local.hpp"
#include "common/cli/client/view.hpp"
#include "common/cli/json_text.hpp"
#include "common/cli/table.hpp"

namespace pgvigil::client {

namespace {

const Option watch_option{"watch", "", "go on showing it, until interrupted"};

// Clears the screen of a terminal; in a pipe each picture follows the last one.
void begin_picture() {
  if (::isatty(STDOUT_FILENO) != 0) print("\x1b[H\x1b[2J");
}

// What counts as a change: a clock that goes on is none.
json::array without_ages(json::array nodes) {
  for (json::value& node : nodes) node.as_object().erase("report_age_seconds");
  return nodes;
}

int show_local(const Args& args) {
  const config::Config config = load_config(args);
  const json::object state = local_state(config);
  const json::object postgres = local_postgres(config);
  if (args.has("json")) {
    print_json(json::object{{"postgres", postgres}, {"state", state}});
    return 0;
  }
  cli::Table table({"Name", "Node", "Host:Port", "TLI", "PostgreSQL", "Reported State", "Assigned State"});
  table.add({cli::cell(state, "name"), cli::cell(state, "groupId") + "/" + cli::cell(state, "nodeId"),
             config.hostname + ":" + std::to_string(config.port), cli::cell(state, "timeline"), postgres_word(postgres),
             cli::cell(state, "current_role"), cli::cell(state, "assigned_role")});
  print(table.text());
  return 0;
}

int show_state(const Args& args) {
  if (args.has("local")) return show_local(args);
  Monitor monitor(args);
  const std::string formation = formation_of(args);
  const auto group = group_of(args);
  const bool watch = args.has("watch");
  if (watch) monitor.listen();
  std::string last;
  for (;;) {
    const json::array nodes = monitor.current_state(formation, group);
    const json::array why = monitor.rows("pgvigil.why($1::text, $2::int)", {formation, group_param(group)});
    const std::string seen =
        args.has("json") ? json::serialize(without_ages(nodes)) : state_table(nodes) + advice_text(why);
    if (seen != last) {
      if (watch && !args.has("json")) begin_picture();
      print(!args.has("json") ? seen : watch ? json::serialize(nodes) + "\n" : cli::pretty(nodes));
      last = seen;
    }
    if (!watch) return 0;
    monitor.wait_event(pg::Millis{1000});
  }
}

json::array events_of(Monitor& monitor, const Args& args, int count) {
  return monitor.rows("pgvigil.last_events($1::text, $2::int, $3::int)",
                      {formation_of(args), group_param(group_of(args)), std::to_string(count)});
}

int show_takeover(const Args& args) {
  const int newest = args.arguments.empty() ? 1 : cli::parse_integer(args.arguments.front(), "N", 1, 1'000'000);
  Monitor monitor(args);
  const json::array rows = monitor.rows("pgvigil.takeover($1::text, $2::int, $3::int)",
                                        {formation_of(args), group_param(group_of(args)), std::to_string(newest)});
  if (rows.empty()) {
    throw UserError(ExitCode::bad_arguments,
                    newest == 1 ? "no failover or switchover is on record"
                                : "fewer than " + std::to_string(newest) + " failovers and switchovers are on record",
                    "--failover counts them from the newest, 1; `pgvigil show events` shows what else was decided");
  }
  const json::object takeover = takeover_object(rows);
  if (args.has("json")) {
    print_json(takeover);
  } else {
    print(takeover_text(takeover));
  }
  return 0;
}

// The last `count` events, then each that comes, until interrupted.
[[noreturn]] void watch_events(Monitor& monitor, const Args& args, int count) {
  constexpr int at_a_time = 1000;
  monitor.listen();
  FreshEvents fresh;
  int picture = std::max(count, at_a_time);
  for (std::size_t shown_at_most = static_cast<std::size_t>(count);; shown_at_most = at_a_time) {
    const json::array events = fresh.of(events_of(monitor, args, picture), static_cast<std::size_t>(picture));
    for (std::size_t i = events.size() - std::min(events.size(), shown_at_most); i < events.size(); ++i)
      print(args.has("json") ? json::serialize(events[i]) + "\n" : event_line(events[i]));
    picture = at_a_time;
    monitor.wait_event(pg::Millis{5000});
  }
}

int show_events(const Args& args) {
  if (args.has("failover")) return show_takeover(args);
  if (!args.arguments.empty()) {
    throw UserError(ExitCode::bad_arguments,
                    "`show events` takes \"" + args.arguments.front() + "\" only with --failover",
                    "--count N says how many events");
  }
  const int count = args.integer("count", 10, 0, 1'000'000);
  Monitor monitor(args);
  if (args.has("watch")) watch_events(monitor, args, count);
  const json::array events = events_of(monitor, args, count);
  if (args.has("json")) {
    print_json(events);
  } else {
    print(event_table(events));
  }
  return 0;
}

int show_why(const Args& args) {
  Monitor monitor(args);
  json::array rows = monitor.rows("pgvigil.why($1::text, $2::int)", {formation_of(args), group_param(group_of(args))});
  if (args.has("name")) {
    const std::int64_t id =
        integer_of(find_node(monitor.current_state(formation_of(args), std::nullopt), args), "node_id");
    // What the group as a whole waits for, its nodes wait for as well.
    rows.erase(std::remove_if(rows.begin(), rows.end(),
                              [id](const json::value& row) {
                                return !row.at("node_id").is_null() && integer_of(row, "node_id") != id;
                              }),
               rows.end());
  }
  if (args.has("json")) {
    print_json(rows);
    return 0;
  }
  print(rows.empty() && args.has("name") ? args.get("name") + " is where it should be.\n" : why_text(rows));
  return 0;
}

int show_names(const Args& args) {
  Monitor monitor(args);
  const std::string formation = formation_of(args);
  const int group = one_group(monitor, args);
  const std::string names = monitor
                                .query("select pgvigil.synchronous_standby_names($1::text, $2::int) as names",
                                       {formation, std::to_string(group)})
                                .text(0, "names");
  if (args.has("json")) {
    print_json(json::object{{"formation", formation}, {"group", group}, {"synchronous_standby_names", names}});
  } else {
    print("'" + names + "'\n");
  }
  return 0;
}

}  // namespace

int show_settings(const Args& args) {
  Monitor monitor(args);
  const json::array rows = monitor.rows("pgvigil.formation_settings($1::text)", {formation_of(args)});
  if (!args.has("json")) {
    cli::Table table({"Context", "Name", "Setting", "Value"});
    for (const json::value& row : rows) {
      table.add(
          {cli::cell(row, "context"), cli::cell(row, "nodename"), cli::cell(row, "setting"), cli::cell(row, "value")});
    }
    print(table.text());
    return 0;
  }
  json::array formation, primary, nodes;
  for (const json::value& row : rows) {
    const std::string context = cli::cell(row, "context");
    (context == "formation" ? formation : context == "primary" ? primary : nodes).push_back(row);
  }
  print_json(json::object{{"formation", formation}, {"primary", primary}, {"nodes", nodes}});
  return 0;
}

std::vector<Command> show_commands() {
  const Option count{"count", "N", "how many (10)"};
  const Option failover{"failover", "", "the moments of the last failover or switchover, or of the N-th newest"};
  const Option local{"local", "", "only this node, from its own files; asks no monitor"};
  return {
      {"show state",
       "the nodes, with reported and assigned states",
       monitor_options({group_option(), local, watch_option}),
       {},
       show_state,
       "With --watch --json: one line for each change."},
      {"show events",
       "what was decided, by which rule, and why",
       monitor_options({group_option(), count, watch_option, failover}),
       {"[N]"},
       show_events,
       "With --failover: what the gap of the last takeover was made of, in milliseconds, by the monotonic clock of "
       "whoever saw it; with N, of the N-th newest one. What a keeper told stands where it was at the latest: nobody "
       "knows how the ways of the order and of the report share their time. A group keeps its newest 20,000 events."},
      {"show why",
       "for every node that is not where it should be: the rule, what it waits for, since when",
       monitor_options({group_option(), Option{"name", "NODE", "only this node"}}),
       {},
       show_why,
       "The row without a name is the group as a whole. What an operator could do stands below it."},
      {"show settings", "the settings of a formation and of its nodes", monitor_options(), {}, show_settings},
      {"show standby-names",
       "synchronous_standby_names of a group's primary",
       monitor_options({group_option()}),
       {},
       show_names},
  };
}

}  // namespace pgvigil::client
