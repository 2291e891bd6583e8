// show uri: what applications and keepers connect to.
#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/json_text.hpp"
#include "common/cli/table.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

namespace {

// "" for a formation without nodes.
std::string formation_uri(Monitor& monitor, const std::string& formation) {
  const auto rows = monitor.query("select host, port, dbname from pgvigil.formation_hosts($1::text)", {formation});
  std::vector<pg::HostPort> hosts;
  for (int i = 0; i < rows.rows(); ++i)
    hosts.push_back({rows.text(i, "host"), static_cast<int>(rows.integer(i, "port"))});
  return hosts.empty() ? "" : pg::application_uri(hosts, rows.text(0, "dbname"), "prefer");
}

json::object entry(const char* type, const std::string& name, const std::string& uri) {
  return {{"type", type}, {"name", name}, {"uri", uri}};
}

int show_one(const Args& args, const json::object& found) {
  const std::string uri = cli::cell(found, "uri");
  if (uri.empty()) {
    throw UserError(ExitCode::bad_arguments, "formation \"" + cli::cell(found, "name") + "\" has no nodes yet",
                    "`pgvigil create postgres` makes one");
  }
  if (args.has("json")) {
    print_json(found);
  } else {
    print(uri + "\n");
  }
  return 0;
}

int show_uri(const Args& args) {
  if (args.get("formation") == "monitor") return show_one(args, entry("monitor", "monitor", monitor_uri(args)));
  Monitor monitor(args);
  if (args.given("formation")) {
    const std::string name = args.get("formation");
    return show_one(args, entry("formation", name, formation_uri(monitor, name)));
  }
  json::array all{entry("monitor", "monitor", monitor_uri(args))};
  const auto formations = monitor.query("select f as name from pgvigil.formations() as f");
  for (int i = 0; i < formations.rows(); ++i) {
    const std::string name = formations.text(i, "name");
    all.push_back(entry("formation", name, formation_uri(monitor, name)));
  }
  if (args.has("json")) {
    print_json(all);
    return 0;
  }
  cli::Table table({"Type", "Name", "Connection String"});
  for (const json::value& row : all) table.add({cli::cell(row, "type"), cli::cell(row, "name"), cli::cell(row, "uri")});
  print(table.text());
  return 0;
}

}  // namespace

std::vector<Command> uri_commands() {
  return {
      {"show uri",
       "connection strings of the monitor and of the formations",
       monitor_options(),
       {},
       show_uri,
       "With --formation NAME only that one, without a table; the name \"monitor\" stands for the monitor itself."}};
}

}  // namespace pgvigil::client
