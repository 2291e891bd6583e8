// What is kept of the WAL that only this node has.
#include "keeper/actions/aside.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <set>

#include "common/os/file.hpp"

using namespace pgvigil;
using namespace pgvigil::keeper;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t size = 4096;  // of a segment

struct Place {
  fs::path path;
  Node node;
  Place() {
    char name[] = "/tmp/pgvigil-unit.XXXXXX";
    path = ::mkdtemp(name);
    node.config.pgdata = (path / "pgdata").string();
    node.config.state_directory = (path / "state").string();
    fs::create_directories(path / "pgdata" / "pg_wal");
    fs::create_directories(diverged());
  }
  ~Place() { fs::remove_all(path); }

  fs::path diverged() const { return path / "state" / "diverged"; }
  static std::string name(unsigned number) {
    char text[32];
    std::snprintf(text, sizeof text, "%08X%08X%08X", 1U, 0U, number);
    return text;
  }
  void add(unsigned number, char content) const {
    const std::uint64_t begins = number * size;
    std::array<char, size> bytes{};
    bytes.fill(content);
    std::memcpy(bytes.data() + 8, &begins, sizeof begins);
    std::ofstream(path / "pgdata" / "pg_wal" / name(number), std::ios::binary).write(bytes.data(), bytes.size());
  }
  // From the middle of segment 3 on.
  void keep() const {
    WalPosition local;
    local.timeline = Timeline{1};
    local.lsn = Lsn{5 * size};
    asio::io_context context(1);
    std::exception_ptr failure;
    asio::co_spawn(context, keep_aside(node, local, Lsn{3 * size + 100}, [](const std::string&) {}),
                   [&](std::exception_ptr error) { failure = error; });
    context.run();
    if (failure) std::rethrow_exception(failure);
  }
  std::set<std::string> sets() const {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(diverged())) found.insert(entry.path().filename().string());
    return found;
  }
};

using Sets = std::set<std::string>;

}  // namespace

TEST_CASE("WAL is kept aside once, however often that is tried") {
  const Place place;
  for (unsigned number = 2; number <= 4; ++number) place.add(number, 'a');
  for (const char* earlier : {"1", "2"}) {
    fs::create_directory(place.diverged() / earlier);
    os::write_file_atomic(place.diverged() / earlier / "README", "WAL of an earlier incident");
  }
  for (int attempt = 0; attempt < 4; ++attempt) place.keep();
  CHECK(place.sets() == Sets{"1", "2", "3"});
  CHECK(!fs::exists(place.diverged() / "3" / Place::name(2)));
  CHECK(fs::file_size(place.diverged() / "3" / Place::name(3)) == size);
  CHECK(fs::file_size(place.diverged() / "3" / Place::name(4)) == size);

  SUBCASE("not when more has been written since") {
    place.add(5, 'a');
    place.keep();
    CHECK(place.sets() == Sets{"2", "3", "4"});
    place.keep();
    CHECK(place.sets() == Sets{"2", "3", "4"});
  }
  SUBCASE("not when something else is in a segment of the same name") {
    fs::remove(place.path / "pgdata" / "pg_wal" / Place::name(4));
    place.add(4, 'b');
    place.keep();
    CHECK(os::read_file(place.diverged() / "4" / Place::name(4))->back() == 'b');
    CHECK(os::read_file(place.diverged() / "3" / Place::name(4))->back() == 'a');
  }
  SUBCASE("not when somebody has taken something out of the set") {
    fs::remove(place.diverged() / "3" / Place::name(4));
    place.keep();
    CHECK(place.sets() == Sets{"2", "3", "4"});
  }
}
