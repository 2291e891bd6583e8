#include "common/cli/client/commands.hpp"

namespace {

using namespace pgvigil;

cli::Program program() {
  cli::Program tree;
  tree.name = "pgvigil";  // also when called through a symlink: what the texts name is what is installed everywhere
  tree.summary = "keeps a PostgreSQL service writable";
  for (const auto& family : {client::daemon_commands(), client::process_commands(), client::show_commands(),
                             client::uri_commands(), client::fsm_commands(), client::systemd_commands(),
                             client::perform_commands(), client::maintenance_commands(), client::tls_commands(),
                             client::membership_commands(), client::settings_commands(), client::config_commands()}) {
    tree.commands.insert(tree.commands.end(), family.begin(), family.end());
  }
  tree.common = {{"verbose,v", "", "say more"}, {"quiet,q", "", "say nothing but results and errors"}};
  tree.epilogue =
      "Exit codes: 0 ok; 1 bad arguments, or refused; 2 bad configuration; 3 bad state file, or not running; 4 error "
      "of the local\n"
      "PostgreSQL; 5 PostgreSQL not ready; 6 monitor not reached or in error; 8 the daemon could not be told to stop;\n"
      "9 it could not be told to reload; 12 internal, or out of time; 121 the node was dropped.\n";
  return tree;
}

}  // namespace

int main(int argc, char** argv) {
  return cli::run_main("pgvigil", argc, argv,
                       [](const std::vector<std::string>& args) { return cli::dispatch(program(), args); });
}
