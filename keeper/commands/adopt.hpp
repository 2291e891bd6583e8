// What `create` finds in a cluster that was there before: running or stopped, its configuration in PGDATA or elsewhere.
#pragma once
#include <boost/asio/awaitable.hpp>

#include "common/cli/cli.hpp"
#include "common/config/config.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::keeper {

// A cluster that is there gets the programs of its own major version, or throws UserError: others would not start it.
boost::asio::awaitable<void> fit_programs(config::Config& config, const cli::Args& args);

// Takes the cluster's own port (unless one was asked for), socket directory and places of configuration files into
// `config`. Changes nothing on disk.
boost::asio::awaitable<void> adopt_cluster(config::Config& config, const cli::Args& args);

// Throws UserError when the PostgreSQL that runs there would have to be restarted to be taken over.
boost::asio::awaitable<void> check_running(const postgres::Instance& instance);

}  // namespace pgvigil::keeper
