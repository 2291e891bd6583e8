// The keeper's own command line; `pgvigil create postgres`, `pgvigil run` and `pgvigil drop node` hand over to it.
#pragma once
#include "common/cli/cli.hpp"
#include "common/config/config.hpp"

namespace pgvigil::keeper {

cli::Program program();

// What `create` does in a Debian: sockets where clients look for them; a cluster of postgresql-common is refused until
// it has been handed over, then its configuration, port and version are taken over. (debian.cpp)
void fit_into_debian(config::Config& config, const cli::Args& args, bool is_new);

}  // namespace pgvigil::keeper
