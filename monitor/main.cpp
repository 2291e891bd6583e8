#include "common/cli/cli.hpp"
#include "monitor/commands/commands.hpp"

int main(int argc, char** argv) {
  return pgvigil::cli::run_main("pgvigil-monitor", argc, argv, [](const std::vector<std::string>& args) {
    return pgvigil::cli::dispatch(pgvigil::monitor::program(), args);
  });
}
