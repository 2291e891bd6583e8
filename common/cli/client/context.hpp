// What the commands have in common: their options, whose node they are about, and the monitor's database.
#pragma once
#include <boost/json.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/cli/cli.hpp"
#include "common/config/config.hpp"
#include "common/pg/connection.hpp"

namespace pgvigil::client {

using cli::Args;
using cli::Command;
using cli::Option;

namespace json = boost::json;

const Option& pgdata_option();
const Option& formation_option();
const Option& group_option();
const Option& json_option();
// --pgdata, --monitor, --monitor-password-file, --formation, --json, and the given ones.
std::vector<Option> monitor_options(std::vector<Option> more = {});

// The configuration of the node in --pgdata (or $PGDATA). nullopt: no PGDATA given, or no configuration for it.
std::optional<config::Config> find_config(const Args& args);
// The same, or UserError(bad_config).
config::Config load_config(const Args& args);
// For a command that changes the node's files: root becomes the user who owns them, whose daemon is to read them.
config::Config load_own_config(const Args& args);

// --formation, else the configuration's (of a keeper), else "default".
std::string formation_of(const Args& args);
// --group; nullopt: all.
std::optional<int> group_of(const Args& args);

// For libpq, may hold the password; never printed. From --monitor, the environment, or the configuration of --pgdata.
std::string monitor_conninfo(const Args& args);
// The same as the URI that keepers use, without a password.
std::string monitor_uri(const Args& args);

// A session with the monitor's database. Every error is a UserError: what the monitor refuses ends with bad_arguments
// (1), all that keeps us from asking it with monitor (6).
class Monitor {
 public:
  explicit Monitor(const Args& args);
  pg::Result query(const std::string& sql, const std::vector<pg::Param>& params = {});
  // The same for what changes something: when no answer comes, the error says that it may have been carried out.
  pg::Result change(const std::string& sql, const std::vector<pg::Param>& params = {});
  // All rows that `from` (a function call) yields, as JSON objects with the names and types of its columns.
  json::array rows(const std::string& from, const std::vector<pg::Param>& params = {});
  json::array current_state(const std::string& formation, std::optional<int> group);
  // LISTENs on the events' channel from now on.
  void listen();
  // True when an event came, false after the timeout.
  bool wait_event(pg::Millis timeout);

 private:
  enum class Change { none, sent, done };

  std::string in_doubt() const;

  std::unique_ptr<pg::BlockingConnection> connection_;
  std::string where_;  // for messages
  Change change_{Change::none};
};

pg::Param group_param(std::optional<int> group);
// For a command that is about one group: --group, else that of the node of --pgdata, else the only one there is.
// Throws UserError(bad_arguments) when several are left.
int one_group(Monitor& monitor, const Args& args);

// The row of the node that --name, or --hostname and --pgport, or the configuration of --pgdata names.
// Throws UserError(bad_arguments).
json::value find_node(const json::array& nodes, const Args& args);

std::int64_t integer_of(const json::value& row, std::string_view key);

// Text for a person, on stderr; silent with --quiet.
void note(const Args& args, const std::string& text);

void print_json(const json::value& value);
void print(const std::string& text);

}  // namespace pgvigil::client
