// The monitor daemon's own command line; `pgvigil create monitor`, `pgvigil run` and `pgvigil drop monitor` hand over
// to it.
#pragma once
#include "common/cli/cli.hpp"

namespace pgvigil::monitor {

cli::Program program();

}  // namespace pgvigil::monitor
