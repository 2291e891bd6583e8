// show uri: what applications and keepers connect to.
#include <algorithm>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/json_text.hpp"
#include "common/cli/table.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

namespace {

json::object entry(const char* type, const std::string& name, const std::string& uri) {
  return {{"type", type}, {"name", name}, {"uri", uri}};
}

// By which both can be reached.
std::string weaker(const std::string& one, const std::string& other) {
  for (const char* mode : {"prefer", "require", "verify-ca"}) {
    if (one == mode || other == mode) return mode;
  }
  return one;
}

// One of each group: an application writes to one group. "" for a formation without nodes.
json::array formation_uris(Monitor& monitor, const Args& args, const std::string& formation, std::optional<int> group) {
  const auto rows =
      monitor.query("select group_id, host, port, dbname, sslmode from pgvigil.formation_hosts($1::text)", {formation});
  const auto local = find_config(args);
  json::array uris;
  for (int i = 0; i < rows.rows();) {
    const std::int64_t number = rows.integer(i, "group_id");
    const std::string dbname = rows.text(i, "dbname");
    std::string sslmode = rows.text(i, "sslmode");
    std::vector<pg::HostPort> hosts;
    for (; i < rows.rows() && rows.integer(i, "group_id") == number; ++i) {
      hosts.push_back({rows.text(i, "host"), static_cast<int>(rows.integer(i, "port"))});
      sslmode = weaker(sslmode, rows.text(i, "sslmode"));
    }
    if (group && *group != number) continue;
    const bool verified = local && sslmode.starts_with("verify-");
    const std::string uri =
        pg::application_uri(hosts, dbname, sslmode, verified ? local->ssl_ca_file : "", !args.has("plain"));
    json::object row = entry("formation", formation, uri);
    row["group_id"] = number;
    uris.push_back(row);
  }
  if (uris.empty()) uris.push_back(entry("formation", formation, ""));
  return uris;
}

int show_one(const Args& args, const json::object& found) {
  if (args.has("json")) {
    print_json(found);
  } else {
    print(cli::cell(found, "uri") + "\n");
  }
  return 0;
}

int show_formation(const Args& args) {
  const std::string name = formation_of(args);
  const auto group = group_of(args);
  Monitor monitor(args);
  const json::array uris = formation_uris(monitor, args, name, group);
  if (cli::cell(uris.front(), "uri").empty()) {
    throw UserError(ExitCode::bad_arguments,
                    "formation \"" + name + "\" has no nodes" +
                        (group ? " in group " + std::to_string(*group) : std::string(" yet")),
                    "`pgvigil create postgres` makes one; `pgvigil show state` lists them");
  }
  if (uris.size() == 1) return show_one(args, uris.front().as_object());
  if (args.has("json")) {
    print_json(uris);
  } else {
    for (const json::value& row : uris) print(cli::cell(row, "uri") + "\n");
  }
  return 0;
}

// With the group's number where a formation has several.
std::string title(const json::array& all, const json::value& row) {
  const std::string name = cli::cell(row, "name");
  const auto groups = std::count_if(all.begin(), all.end(), [&](const json::value& other) {
    return cli::cell(other, "type") == "formation" && cli::cell(row, "type") == "formation" &&
           cli::cell(other, "name") == name;
  });
  return groups > 1 ? name + "/" + cli::cell(row, "group_id") : name;
}

int show_uri(const Args& args) {
  if (args.get("formation") == "monitor") return show_one(args, entry("monitor", "monitor", monitor_uri(args)));
  if (args.given("formation") || args.given("group")) return show_formation(args);
  Monitor monitor(args);
  json::array all{entry("monitor", "monitor", monitor_uri(args))};
  const auto formations = monitor.query("select f as name from pgvigil.formations() as f");
  for (int i = 0; i < formations.rows(); ++i) {
    for (const json::value& row : formation_uris(monitor, args, formations.text(i, "name"), std::nullopt))
      all.push_back(row);
  }
  if (args.has("json")) {
    print_json(all);
    return 0;
  }
  cli::Table table({"Type", "Name", "Connection String"});
  for (const json::value& row : all) table.add({cli::cell(row, "type"), title(all, row), cli::cell(row, "uri")});
  print(table.text());
  return 0;
}

}  // namespace

std::vector<Command> uri_commands() {
  const Option plain{"plain", "", "without the timeouts: for drivers that do not know libpq's parameters"};
  return {
      {"show uri",
       "connection strings of the monitor and of the formations",
       monitor_options({group_option(), plain}),
       {},
       show_uri,
       "One for each group. With --formation NAME or --group N only that, without a table (JSON: one object, an array "
       "when the formation has several groups and none is named); the name \"monitor\" stands for the monitor "
       "itself."}};
}

}  // namespace pgvigil::client
