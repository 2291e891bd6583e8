#include "monitor/service/witness.hpp"

#include <fstream>
#include <sstream>

#include "common/model/types.hpp"
#include "common/os/file.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;

std::optional<std::string> not_a_continuation(const std::optional<Witness>& before, const Witness& now) {
  if (!before) return "nothing is known of this database's past";
  if (before->system_identifier != now.system_identifier) return "this is another database than before";
  if (now.generation < before->generation) return "the database is older than it was";
  return std::nullopt;
}

asio::awaitable<Witness> take_witness(pg::Connection& database) {
  const pg::Result row = co_await database.query(
      "SELECT system_identifier, generation FROM pg_control_system(), pgvigil.memory", {}, pg::Millis{5000});
  Witness witness;
  witness.system_identifier = row.text(0, "system_identifier");
  witness.generation = row.integer(0, "generation");
  co_return witness;
}

std::optional<Witness> load_witness(const std::filesystem::path& file) {
  std::istringstream words(os::read_file(file).value_or(""));
  Witness witness;
  if (!(words >> witness.system_identifier >> witness.generation)) return std::nullopt;
  return witness;
}

void save_witness(const std::filesystem::path& file, const Witness& witness) {
  const std::filesystem::path fresh = file.string() + ".new";
  std::ofstream out(fresh);
  out << witness.system_identifier << " " << witness.generation << "\n";
  out.close();
  std::error_code failed;
  if (out) {
    std::filesystem::rename(fresh, file, failed);
    if (!failed) return;
  }
  std::filesystem::remove(file, failed);
  throw Error("cannot write " + fresh.string());
}

}  // namespace pgvigil::monitor
