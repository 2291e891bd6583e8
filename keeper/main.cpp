#include "common/cli/cli.hpp"
#include "keeper/commands/commands.hpp"

int main(int argc, char** argv) {
  return pgvigil::cli::run_main("pgvigil-keeper", argc, argv, [](const std::vector<std::string>& args) {
    return pgvigil::cli::dispatch(pgvigil::keeper::program(), args);
  });
}
