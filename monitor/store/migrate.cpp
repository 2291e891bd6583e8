#include <charconv>

#include "common/log/log.hpp"
#include "monitor/store/store.hpp"
#include "sql/embedded.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;

namespace {

constexpr pg::Millis patience{60000};

// "001_schema.sql" -> 1. Files from 100 on are functions: loaded each time.
int number_of(std::string_view name) {
  int number = 0;
  std::from_chars(name.data(), name.data() + name.size(), number);
  return number;
}
constexpr int first_function_file = 100;

int newest_version() {
  int newest = 0;
  for (const auto& file : sql::embedded_files()) {
    const int number = number_of(file.name);
    if (number < first_function_file) newest = std::max(newest, number);
  }
  return newest;
}

// Of all the texts (FNV-1a): functions are loaded anew when one has changed. To load them is cheap once, but it makes
// every session plan its statements again, and the monitor comes here with each new session of its own.
std::string fingerprint() {
  std::uint64_t hash = 14695981039346656037u;
  for (const auto& file : sql::embedded_files()) {
    for (const char c : file.text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  }
  return std::to_string(hash);
}

}  // namespace

asio::awaitable<void> migrate(pg::Connection& database, bool ours_alone) {
  const std::string begin =
      "BEGIN; SELECT pg_advisory_xact_lock(7367031); SET LOCAL client_min_messages = warning; CREATE SCHEMA IF NOT "
      "EXISTS pgvigil; "
      "CREATE TABLE IF NOT EXISTS pgvigil.meta (schema_version integer NOT NULL); "
      "ALTER TABLE pgvigil.meta ADD COLUMN IF NOT EXISTS functions text";
  co_await database.query(begin, {}, patience);
  const pg::Result row = co_await database.query(
      "SELECT coalesce(max(schema_version), 0) AS version, coalesce(max(functions), '') AS functions, "
      // a dump put back elsewhere has neither roles nor what stands in the database's own row
      "(SELECT count(*) = 2 FROM pg_roles WHERE rolname IN ('pgvigil_node', 'pgvigil_keeper')) AS roles, "
      "NOT has_database_privilege('public', current_database(), 'TEMPORARY') AS closed FROM pgvigil.meta",
      {}, patience);
  const auto present = static_cast<int>(row.integer(0, "version"));
  const int newest = newest_version();
  if (present > newest) {
    co_await rollback(database);
    throw UserError(ExitCode::monitor,
                    "the monitor's schema is of version " + std::to_string(present) + ", newer than this program's " +
                        std::to_string(newest),
                    "run the newer pgvigil");
  }
  const std::string functions = fingerprint();
  if (present == newest && row.text(0, "functions") == functions && row.boolean(0, "roles") &&
      (row.boolean(0, "closed") || !ours_alone)) {
    co_await rollback(database);
    co_return;
  }
  for (const auto& file : sql::embedded_files()) {
    const int number = number_of(file.name);
    if (number <= present && number < first_function_file) continue;
    const std::string text(file.text);
    co_await database.query(text, {}, patience);
  }
  if (ours_alone) co_await database.query("SELECT pgvigil.close_doors()", {}, patience);
  const std::string finish = "DELETE FROM pgvigil.meta; INSERT INTO pgvigil.meta VALUES (" + std::to_string(newest) +
                             ", '" + functions + "'); COMMIT";
  co_await database.query(finish, {}, patience);
  if (present != newest) log::info("the monitor's schema is now of version {} (was {})", newest, present);
}

}  // namespace pgvigil::monitor
