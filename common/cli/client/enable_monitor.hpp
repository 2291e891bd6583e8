// enable monitor: gives the local node another monitor, when its keeper can get in there.
#pragma once
#include "common/cli/cli.hpp"

namespace pgvigil::client {

cli::Command enable_monitor_command();

}  // namespace pgvigil::client
