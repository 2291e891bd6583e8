// What `create postgres` and `enable monitor` are told of the monitor: a URI, and a password that the keeper needs for
// ever.
#pragma once
#include <string>

#include "common/cli/cli.hpp"
#include "common/config/config.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::cli {

// Throws UserError(bad_arguments): "SOURCE is not a connection string: ...".
pg::ConninfoMap parse_monitor_uri(const std::string& uri, const std::string& source);

struct MonitorOption {
  std::string uri;       // without a password
  std::string password;  // of the environment: its URI's, else PGPASSWORD; or empty
};

// --monitor, else the environment's URI, else `known`. Throws UserError(bad_arguments) when there is none, when it is
// no connection string, and when --monitor holds a password.
MonitorOption monitor_option(const Args& args, const std::string& known);

// A password of the environment is for one command: it goes into a file of the state directory (mode 0600), which the
// configuration names.
void keep_monitor_password(config::Config& config, const std::string& password);

}  // namespace pgvigil::cli
