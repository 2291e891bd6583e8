#include "common/postgres/data_directory.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "common/model/types.hpp"
#include "common/os/file.hpp"

namespace pgvigil::postgres {

namespace {

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool same_directory(const fs::path& one, const fs::path& other) {
  struct stat a {};
  struct stat b {};
  return ::stat(one.c_str(), &a) == 0 && ::stat(other.c_str(), &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// The data directory of another postmaster or backend that has a tablespace or its WAL in `directory`; "" when there is
// none. A process may see other mounts than we do: its paths are followed from its root.
std::string other_user(const fs::path& directory, const fs::path& pgdata) {
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    if (!is_number(process.path().filename().string())) continue;
    const std::string exe = fs::read_symlink(process.path() / "exe", error).filename().string();
    if (error || !exe.starts_with("postgres")) continue;
    const fs::path other = fs::read_symlink(process.path() / "cwd", error);
    if (error || same_directory(process.path() / "cwd", pgdata)) continue;
    auto places = tablespaces(process.path() / "cwd");
    if (const auto wal = linked_wal(process.path() / "cwd")) places.push_back(*wal);
    for (const fs::path& theirs : places) {
      if (same_directory(process.path() / "root" / theirs.relative_path(), directory)) return other.string();
    }
  }
  return {};
}

// A tablespace holds one directory for each major version that uses it: PG_15_202209061.
void empty_tablespace(const fs::path& directory, const std::string& version) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().filename().string().starts_with("PG_" + version + "_")) fs::remove_all(entry.path());
  }
}

// Objects that initdb makes have lower numbers (transam.h, FirstNormalObjectId).
constexpr unsigned long first_normal_object{16384};

// A database, or a relation: "16384", "16384.1", "16384_fsm".
bool is_somebodys_object(const std::string& name) {
  const std::string number = name.substr(0, name.find_first_of("._"));
  return is_number(number) && std::strtoul(number.c_str(), nullptr, 10) >= first_normal_object;
}

// Not made by initdb: postmaster.opts (the first start of a server), backup_label and backup_manifest (a copy), ...
constexpr std::array made_by_initdb{"PG_VERSION",      "base",
                                    "global",          "pg_commit_ts",
                                    "pg_dynshmem",     "pg_hba.conf",
                                    "pg_ident.conf",   "pg_logical",
                                    "pg_multixact",    "pg_notify",
                                    "pg_replslot",     "pg_serial",
                                    "pg_snapshots",    "pg_stat",
                                    "pg_stat_tmp",     "pg_subtrans",
                                    "pg_tblspc",       "pg_twophase",
                                    "pg_wal",          "pg_xact",
                                    "postgresql.conf", "postgresql.auto.conf",
                                    "postmaster.pid",  "lost+found"};

}  // namespace

std::string not_of_initdb(const fs::path& pgdata) {
  if (!fs::exists(pgdata)) return {};
  for (const auto& entry : fs::directory_iterator(pgdata)) {
    const std::string name = entry.path().filename().string();
    if (std::find(made_by_initdb.begin(), made_by_initdb.end(), name) == made_by_initdb.end()) return name;
  }
  if (fs::is_symlink(pgdata / "pg_wal")) return "the link pg_wal";
  if (fs::exists(pgdata / "pg_tblspc") && !fs::is_empty(pgdata / "pg_tblspc")) return "a tablespace in pg_tblspc";
  if (!fs::exists(pgdata / "base")) return {};
  for (const auto& database : fs::directory_iterator(pgdata / "base")) {
    const std::string name = database.path().filename().string();
    if (is_somebodys_object(name) || !database.is_directory()) return "base/" + name;
    for (const auto& file : fs::directory_iterator(database.path())) {
      const std::string relation = file.path().filename().string();
      if (is_somebodys_object(relation)) return "base/" + name + "/" + relation;
    }
  }
  return {};
}

std::vector<fs::path> tablespaces(const fs::path& pgdata) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(pgdata / "pg_tblspc", error)) {
    const fs::path target = fs::read_symlink(entry.path(), error);
    if (!error && target.is_absolute()) found.push_back(target);
  }
  return found;
}

std::optional<fs::path> linked_wal(const fs::path& pgdata) {
  std::error_code error;
  const fs::path target = fs::read_symlink(pgdata / "pg_wal", error);
  if (error) return std::nullopt;
  return target.is_absolute() ? target : fs::weakly_canonical(pgdata / target, error);
}

void refuse_mount_point(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory / "lost+found", error)) return;
  throw UserError(ExitCode::bad_arguments, directory.string() + " holds lost+found, and PostgreSQL makes no copy in " +
                                               "such a directory: use a directory below the mount point");
}

void empty_directory(const fs::path& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().filename() != "lost+found") fs::remove_all(entry.path());
  }
}

void empty_cluster(const fs::path& pgdata) {
  std::string version = os::read_file(pgdata / "PG_VERSION").value_or("");
  while (!version.empty() && version.back() == '\n') version.pop_back();
  const auto elsewhere = tablespaces(pgdata);
  const auto wal = linked_wal(pgdata);
  if (wal) {
    if (const std::string other = other_user(*wal, pgdata); !other.empty())
      throw Error("the WAL in " + wal->string() + " is that of the PostgreSQL of " + other + "; it is left alone");
  }
  for (const fs::path& directory : elsewhere) {
    if (const std::string other = other_user(directory, pgdata); !other.empty()) {
      throw Error("the tablespace in " + directory.string() + " is used by the PostgreSQL of " + other +
                  " too; it is left alone: nodes on one machine cannot have tablespaces");
    }
  }
  for (const fs::path& directory : elsewhere) {
    if (!version.empty()) empty_tablespace(directory, version);
  }
  if (wal) empty_directory(*wal);  // before the link to it
  empty_directory(pgdata);
}

}  // namespace pgvigil::postgres
