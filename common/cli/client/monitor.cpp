// Finding and asking the monitor.
#include <boost/json.hpp>

#include "common/cli/client/context.hpp"
#include "common/cli/monitor_option.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::client {

namespace {

constexpr const char* monitor_database = "pgvigil";
constexpr const char* node_role = "pgvigil_node";

// The server gives up before we do: what was said to have failed must not be carried out when somebody's lock is
// released. Waiting for one lock ends first, because its error says more.
constexpr pg::Millis lock_limit{7000};
constexpr pg::Millis statement_limit{8000};
constexpr pg::Millis answer_limit{10000};

// How a program on the monitor's own host gets in: over its socket, as its superuser.
pg::ConninfoMap local_monitor(const config::Config& config) {
  if (!config.database_uri.empty())
    return cli::parse_monitor_uri(config.database_uri, "monitor database URI in " + config.file.string());
  pg::ConninfoMap values{{"host", config.socket_directory.empty() ? config.state_directory : config.socket_directory},
                         {"port", std::to_string(config.port)},
                         {"dbname", monitor_database}};
  if (!config.superuser.empty()) values["user"] = config.superuser;
  return values;
}

pg::ConninfoMap keepers_monitor(const config::Config& config) {
  if (config.monitor_uri.empty()) {
    throw UserError(ExitCode::bad_config, config.file.string() + " names no monitor", "give --monitor URI");
  }
  pg::ConninfoMap values = cli::parse_monitor_uri(config.monitor_uri, "monitor.uri in " + config.file.string());
  values.merge(config::shown_certificate(config));
  if (!config.monitor_password_file.empty()) values["password"] = os::read_secret_file(config.monitor_password_file);
  return values;
}

// The configuration that says where the monitor is, unless a URI does: --monitor wins, then --pgdata, then the
// environment's URI, then $PGDATA.
std::optional<config::Config> monitor_source(const Args& args) {
  const bool explicit_pgdata = args.given("pgdata") && !args.given("monitor");
  return explicit_pgdata || !args.has("monitor") ? find_config(args) : std::nullopt;
}

UserError no_monitor(const Args& args) {
  if (args.has("pgdata")) {
    const std::string pgdata = args.get("pgdata");
    return UserError(ExitCode::bad_config,
                     "the monitor is not known: there is no configuration for " + pgdata + " (" +
                         config::config_path_for(pgdata).string() + ")",
                     "give --monitor URI, or run this as the user who owns the node");
  }
  return UserError(ExitCode::bad_arguments, "the monitor is not known",
                   "give --monitor URI, or --pgdata of a node on this machine; PGVIGIL_MONITOR and PGDATA do the same");
}

// `in_doubt`: what may have become of what was asked for.
UserError translated(const pg::ConnectionError& error, const std::string& where, const std::string& in_doubt) {
  using Kind = pg::ConnectionError::Kind;
  std::string hint;
  switch (error.kind) {
    case Kind::refused:
      hint = "is the monitor running? `pgvigil status` on its host tells; data nodes go on serving meanwhile";
      break;
    case Kind::rejected:
      hint =
          "PGPASSWORD, PGPASSFILE or --monitor-password-file gives a password; the monitor's pg_hba.conf says who may "
          "come in";
      break;
    case Kind::timeout: hint = "is its host up, and does a firewall drop the packets?"; break;
    case Kind::tls:
      hint = "sslmode and sslrootcert in its URI must fit its certificate; `pgvigil show uri` on its host prints it";
      break;
    case Kind::lost:
    case Kind::other: break;
  }
  // Over the socket of the monitor's own PGDATA.
  const bool stranger = error.kind == Kind::rejected || error.kind == Kind::other;
  if (where.starts_with('/') && stranger) hint = "run this as the user who owns the monitor's data directory";
  return UserError(ExitCode::monitor, "cannot talk to the monitor (" + where + "): " + error.what() + in_doubt, hint);
}

// Undefined function, table or schema, insufficient privilege: it is not a monitor's database, or not one of our
// version. `undone`: what became of what was asked for when this was not answered.
UserError translated(const pg::SqlError& error, const std::string& undone) {
  const std::string& state = error.sqlstate;
  if (state == "55P03" || state == "57014") {
    return UserError(ExitCode::monitor, std::string("the monitor has given it up: ") + error.what() + undone,
                     "try again; when it goes on, somebody holds the rows: in the monitor's database, pg_stat_activity "
                     "and pg_blocking_pids() tell who");
  }
  if (state == "42501") {
    return UserError(ExitCode::monitor, std::string("the monitor does not allow this: ") + error.what(),
                     "connect as pgvigil_node or as the owner of the monitor's database");
  }
  if (state == "42883" || state == "42P01" || state == "3F000" || state == "42703") {
    return UserError(ExitCode::monitor, std::string("the monitor does not offer this: ") + error.what(),
                     "is it pgvigil's database, and of the same version as this program (`pgvigil version`)?");
  }
  // Ours begin with PV; class 22 and 23 are bad values.
  const bool refused = state.starts_with("PV") || state.starts_with("22") || state.starts_with("23");
  return UserError(refused ? ExitCode::bad_arguments : ExitCode::monitor,
                   (refused ? "" : "the monitor answered with an error: ") + std::string(error.what()), error.hint);
}

}  // namespace

std::string monitor_conninfo(const Args& args) {
  pg::ConninfoMap values;
  const auto config = monitor_source(args);
  if (config) {
    values = config->role == config::Role::monitor ? local_monitor(*config) : keepers_monitor(*config);
  } else if (args.has("monitor")) {
    values = cli::parse_monitor_uri(args.get("monitor"),
                                    args.given("monitor") ? "--monitor" : "the monitor's URI in the environment");
  } else {
    throw no_monitor(args);
  }
  if (const auto file = args.maybe("monitor-password-file")) values["password"] = os::read_secret_file(*file);
  values.try_emplace("application_name", "pgvigil");
  return pg::to_conninfo(values);
}

std::string monitor_uri(const Args& args) {
  const auto config = monitor_source(args);
  if (config && config->role == config::Role::monitor && config->database_uri.empty()) {
    pg::ConninfoMap own{{"host", config->hostname},
                        {"port", std::to_string(config->port)},
                        {"dbname", monitor_database},
                        {"user", node_role}};
    if (config->ssl) own["sslmode"] = config->ssl_mode;
    if (config->ssl && !config->ssl_ca_file.empty()) own["sslrootcert"] = config->ssl_ca_file;
    return pg::to_uri(own);
  }
  pg::ConninfoMap values = pg::parse_conninfo(monitor_conninfo(args));
  values.erase("password");
  values.erase("application_name");
  return pg::to_uri(values);
}

Monitor::Monitor(const Args& args) {
  const std::string conninfo = monitor_conninfo(args);
  const pg::ConninfoMap values = pg::parse_conninfo(conninfo);
  const auto value = [&](const char* key, const std::string& fallback) {
    const auto found = values.find(key);
    return found == values.end() || found->second.empty() ? fallback : found->second;
  };
  where_ = value("host", "local socket") + ":" + value("port", "5432");
  if (args.has("verbose")) note(args, "asking the monitor at " + where_);
  try {
    connection_ = std::make_unique<pg::BlockingConnection>(conninfo);
  } catch (const pg::ConnectionError& error) {
    throw translated(error, where_, "");
  }
  query("set lock_timeout = " + std::to_string(lock_limit.count()) +
        "; set statement_timeout = " + std::to_string(statement_limit.count()));
}

pg::Result Monitor::query(const std::string& sql, const std::vector<pg::Param>& params) {
  try {
    return connection_->query(sql, params, answer_limit);
  } catch (const pg::ConnectionError& error) {
    throw translated(error, where_, in_doubt());
  } catch (const pg::SqlError& error) {
    throw translated(error, change_ == Change::done ? in_doubt() : "; nothing was changed");
  }
}

pg::Result Monitor::change(const std::string& sql, const std::vector<pg::Param>& params) {
  change_ = Change::sent;
  pg::Result result = query(sql, params);
  change_ = Change::done;
  return result;
}

std::string Monitor::in_doubt() const {
  switch (change_) {
    case Change::none: return "";
    case Change::sent: return "; what was asked for may have been carried out all the same";
    case Change::done: return "; the monitor has taken what was asked for, and goes on with it";
  }
  return "";
}

json::array Monitor::rows(const std::string& from, const std::vector<pg::Param>& params) {
  const auto result = query("select coalesce(json_agg(row_to_json(r)), '[]') as rows from " + from + " as r", params);
  return json::parse(result.text(0, "rows")).as_array();
}

json::array Monitor::current_state(const std::string& formation, std::optional<int> group) {
  return rows("pgvigil.current_state($1::text, $2::int)", {formation, group_param(group)});
}

void Monitor::listen() {
  query("listen pgvigil_events");
}

bool Monitor::wait_event(pg::Millis timeout) {
  try {
    bool any = false;
    // What has piled up counts as one.
    while (connection_->wait_notification(any ? pg::Millis{1} : timeout)) any = true;
    return any;
  } catch (const pg::ConnectionError& error) {
    throw translated(error, where_, in_doubt());
  }
}

}  // namespace pgvigil::client
