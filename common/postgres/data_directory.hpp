// What belongs to a data directory: its own content, and what its tablespaces hold elsewhere.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace pgvigil::postgres {

namespace fs = std::filesystem;

// Where the tablespaces lie (the targets of the links in pg_tblspc).
std::vector<fs::path> tablespaces(const fs::path& pgdata);

// Where pg_wal lies, when it is a link to another place.
std::optional<fs::path> linked_wal(const fs::path& pgdata);

// initdb and pg_basebackup take no file system's own directory, and a server with one cannot be copied: throws
// UserError when `directory` has a lost+found.
void refuse_mount_point(const fs::path& directory);

// Everything inside a directory, never the directory itself (it may be a mount point); lost+found stays.
void empty_directory(const fs::path& directory);

// What lies in PGDATA that initdb alone does not make (a file of somebody's table, a tablespace, what a server or a
// copy leaves behind), for a person; "" when there is nothing such.
std::string not_of_initdb(const fs::path& pgdata);

// Everything inside PGDATA, and what this cluster has in its tablespaces and behind the link pg_wal. Interrupted, it
// can be run again. Throws pgvigil::Error, before anything is removed, when another running PostgreSQL has one of these
// directories too: nodes on one machine, of which the second has replayed the first one's CREATE TABLESPACE.
void empty_cluster(const fs::path& pgdata);

}  // namespace pgvigil::postgres
