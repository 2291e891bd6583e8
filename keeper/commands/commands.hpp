// The keeper's own command line; `pgvigil create postgres`, `pgvigil run` and `pgvigil drop node` hand over to it.
#pragma once
#include "common/cli/cli.hpp"

namespace pgvigil::keeper {

cli::Program program();

}  // namespace pgvigil::keeper
