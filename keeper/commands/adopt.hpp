// What `create` finds in a cluster that was there before: running or stopped, its configuration in PGDATA or elsewhere.
#pragma once
#include <boost/asio/awaitable.hpp>

#include "common/cli/cli.hpp"
#include "common/config/config.hpp"
#include "common/postgres/config_files.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::keeper {

// A cluster that is there gets the programs of its own major version, or throws UserError: others would not start it.
boost::asio::awaitable<void> fit_programs(config::Config& config, const cli::Args& args);

// Takes the cluster's own port (unless one was asked for), socket directory and places of configuration files into
// `config`. Returns what pgvigil's own settings would lower. Changes nothing on disk.
boost::asio::awaitable<postgres::Settings> adopt_cluster(config::Config& config, const cli::Args& args);
// Into pgvigil's settings file, where the keeper finds and keeps it; a copy of a node has that file already.
void write_kept(const config::Config& config, const postgres::Settings& kept);

// Throws UserError when the PostgreSQL that runs there would have to be restarted to be taken over. `hostname`: by
// which the others are to reach it.
boost::asio::awaitable<void> check_running(const postgres::Instance& instance, std::string hostname);

}  // namespace pgvigil::keeper
