// Debian's clusters (postgresql-common): configuration in /etc/postgresql/VERSION/NAME, data elsewhere, and a unit
// postgresql@VERSION-NAME that starts and stops them. One keeper at a time: such a cluster is handed over first.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace pgvigil::postgres {

namespace fs = std::filesystem;

struct DebianCluster {
  std::string version;
  std::string name;
  fs::path configuration;  // the directory
};

// The cluster whose data_directory is `pgdata`. $PG_CLUSTER_CONF_ROOT stands for /etc/postgresql, as with Debian's own
// tools.
std::optional<DebianCluster> debian_cluster_of(const fs::path& pgdata);

// Throws UserError(bad_arguments), with the commands that hand it over, while Debian keeps it: it `runs`, or is started
// at boot (start.conf).
void refuse_unless_handed_over(const DebianCluster& cluster, bool runs);

}  // namespace pgvigil::postgres
