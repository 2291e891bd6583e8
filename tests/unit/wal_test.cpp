// What the keeper does with the files of pg_wal.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "keeper/actions/wal_files.hpp"

using namespace pgvigil;
using namespace pgvigil::keeper;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t size = 4096;  // of a segment; PostgreSQL's least is 1 MB, which nothing here depends on

struct Wal {
  fs::path path;
  Wal() {
    char name[] = "/tmp/pgvigil-unit.XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Wal() { fs::remove_all(path); }

  // `holds`: the address in its first page.
  void add(unsigned timeline, unsigned number, std::uint64_t holds) const {
    char name[32];
    std::snprintf(name, sizeof name, "%08X%08X%08X", timeline, 0U, number);
    std::array<char, size> content{};
    std::memcpy(content.data() + 8, &holds, sizeof holds);
    std::ofstream(path / name, std::ios::binary).write(content.data(), content.size());
  }
  void add(unsigned timeline, unsigned number) const { add(timeline, number, number * size); }
};

}  // namespace

TEST_CASE("WAL that is here goes on to the last segment that was received") {
  const Wal wal;
  for (unsigned number = 3; number <= 6; ++number) wal.add(1, number);
  const Lsn replayed{4 * size + 100};
  CHECK(received_up_to(wal.path, Timeline{1}, replayed) == Lsn{6 * size});

  SUBCASE("not to those that were made ready for WAL to come") {
    wal.add(1, 7, 2 * size);  // recycled
    wal.add(1, 8, 0);         // new
    wal.add(2, 7);            // of another timeline
    std::ofstream(wal.path / "000000010000000000000007.partial") << "x";
    CHECK(received_up_to(wal.path, Timeline{1}, replayed) == Lsn{6 * size});
  }
  SUBCASE("not past a gap") {
    wal.add(1, 8);
    CHECK(received_up_to(wal.path, Timeline{1}, replayed) == Lsn{6 * size});
  }
  SUBCASE("never back") {
    CHECK(received_up_to(wal.path, Timeline{1}, Lsn{6 * size + 50}) == Lsn{6 * size + 50});
    CHECK(received_up_to(wal.path, Timeline{1}, Lsn{9 * size}) == Lsn{9 * size});
    CHECK(received_up_to(wal.path, Timeline{3}, replayed) == replayed);
    CHECK(received_up_to(wal.path / "missing", Timeline{1}, replayed) == replayed);
  }
}

TEST_CASE("WAL that a node wrote by itself is whole when no segment of it is missing") {
  const Wal wal;
  for (const unsigned number : {3U, 4U, 6U}) wal.add(2, number);
  const auto whole = [&](std::uint64_t from, std::uint64_t to) {
    return whole_between(wal.path, Timeline{2}, Lsn{from}, Lsn{to});
  };
  CHECK(whole(3 * size + 100, 4 * size + 100));
  CHECK(whole(3 * size + 100, 5 * size));
  CHECK_FALSE(whole(3 * size + 100, 5 * size + 1));
  CHECK_FALSE(whole(3 * size + 100, 6 * size + 100));
  CHECK_FALSE(whole(2 * size + 100, 4 * size));
  CHECK(whole(6 * size, 6 * size));
}
