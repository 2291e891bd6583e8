// Manual pages and shell completion, made of the same table that parses the command line and prints its help.
#pragma once
#include <map>
#include <string>

#include "common/cli/cli.hpp"

namespace pgvigil::cli {

// File name ("pgvigil-show-state.1") to text (man(7)): the program, and each of its commands.
std::map<std::string, std::string> manual_pages(const Program& program);

// A script for bash. The scripts of several programs may stand in one file; a command that another program documents is
// completed only there.
std::string bash_completion(const Program& program);

}  // namespace pgvigil::cli
