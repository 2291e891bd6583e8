#include <unistd.h>

#include "common/postgres/debian_layout.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/commands/commands.hpp"
#include "keeper/service/state_file.hpp"

namespace pgvigil::keeper {

namespace fs = std::filesystem;

namespace {

constexpr const char* usual_socket_directory = "/var/run/postgresql";

}  // namespace

void fit_into_debian(config::Config& config, const cli::Args& args, bool is_new) {
  const auto cluster = postgres::debian_cluster_of(config.pgdata);
  const bool system_wide = config.file.parent_path() == "/etc/pgvigil";
  // A superuser of another name is trusted for the sake of a directory that is closed to all others.
  const bool peer = config.superuser.empty();
  if (is_new && peer && (cluster || system_wide) && ::access(usual_socket_directory, W_OK) == 0)
    config.socket_directory = usual_socket_directory;
  if (!cluster) return;
  const bool ours = load_state(config.state_directory).has_value();
  const bool runs = postgres::Instance(instance_settings(config)).postmaster().has_value();
  postgres::refuse_unless_handed_over(*cluster, runs && !ours);
  if (!is_new) return;
  const fs::path bindir = fs::path("/usr/lib/postgresql") / cluster->version / "bin";
  if (!args.has("pgctl") && fs::exists(bindir / "postgres")) config.bindir = bindir.string();
}

}  // namespace pgvigil::keeper
