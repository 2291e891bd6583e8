// How a keeper connects to its monitor.
#pragma once
#include <string>

#include "common/config/config.hpp"

namespace pgvigil::keeper {

// The URI of the configuration with the password from its file, as libpq keywords. Secret: never logged.
std::string monitor_conninfo(const config::Config& config);

}  // namespace pgvigil::keeper
