// What every action needs to know of this node.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/config/config.hpp"
#include "common/model/goal.hpp"
#include "common/postgres/config_files.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::keeper {

inline constexpr const char* replication_role = "pgvigil_replicator";
inline constexpr const char* probe_role = "pgvigil_probe";
inline constexpr const char* unencrypted = "prefer";  // the sslmode that works with and without TLS

struct Node {
  config::Config config;
  NodeId id;

  std::filesystem::path pgdata() const { return config.pgdata; }
  std::filesystem::path file(const char* name) const { return std::filesystem::path(config.state_directory) / name; }
  // 0600. libpq's password file for the roles above; this node's password for the monitor.
  std::filesystem::path passfile() const { return file("pgpass"); }
  std::filesystem::path own_credential() const { return file("own-credential"); }
};

// What a long action tells of itself meanwhile; `show state` has it.
using Progress = std::function<void(const std::string&)>;

postgres::InstanceSettings instance_settings(const config::Config& config);

// The connection of this node's walreceiver, pg_basebackup and pg_rewind to a peer. No password: a passfile. Only the
// walreceiver may have the name that synchronous_standby_names counts: what a base backup receives protects nothing
// yet. By the peer's own sslmode; who has no CA file encrypts, and verifies nothing.
std::string peer_conninfo(const Node& node, const Peer& peer, const char* user, const std::string& dbname,
                          const std::string& application = "pgvigil_copy");

// The certificate; nothing when PostgreSQL has its own, or none.
postgres::Settings tls_settings(const config::Config& config);
// The rest of pgvigil's settings file, for either role. `upstream` nullptr: no primary_conninfo.
postgres::Settings primary_settings(const Node& node, const SyncNames& names);
postgres::Settings standby_settings(const Node& node, const Peer* upstream, const SyncNames& names);
// What PostgreSQL reads of ours: settings, pg_hba.conf where that is ours, standby.signal (which is never taken away
// here).
struct RoleFiles {
  postgres::Settings settings;
  std::vector<Peer> peers;
  bool encrypted{false};  // other nodes reach it by TLS
  bool standby{false};
};
// True: something has changed.
bool write_role_files(const Node& node, const postgres::Instance& instance, const RoleFiles& files);

struct Passwords {
  std::string replication;
  std::string probe;
};
void write_passfile(const Node& node, const Passwords& passwords);
// Throws UserError(bad_state) when the file is not there, or is not as it was written.
Passwords read_passfile(const Node& node);

}  // namespace pgvigil::keeper
