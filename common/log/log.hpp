// Logs through spdlog: text on a terminal, JSON lines on request. Nothing at info level when nothing happens.
#pragma once
#include <spdlog/spdlog.h>

#include <string>

namespace pgvigil::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::trace;
using spdlog::warn;

// level: trace, debug, info, warn, error. format: text, json. Writes to stderr. Throws UserError(bad_config) on another
// word.
void setup(const std::string& program, const std::string& level, const std::string& format);

}  // namespace pgvigil::log
