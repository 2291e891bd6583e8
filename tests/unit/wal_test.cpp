// What the keeper does with the files of pg_wal.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "keeper/actions/archive.hpp"
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

TEST_CASE("A recovery goes from one timeline to the next as far as WAL of the history is here") {
  const Wal wal;
  const WalPosition along{
      Timeline{4},
      Lsn{9 * size},
      {{Timeline{1}, Lsn{3 * size + 100}}, {Timeline{2}, Lsn{5 * size + 10}}, {Timeline{3}, Lsn{5 * size + 20}}}};
  for (unsigned number = 2; number <= 3; ++number) wal.add(1, number);
  CHECK(recovered_up_to(wal.path, along, Lsn{2 * size + 8}) == Lsn{3 * size});

  wal.add(2, 3);
  CHECK(recovered_up_to(wal.path, along, Lsn{2 * size + 8}) == Lsn{3 * size + 100});  // the place where 2 begins
  wal.add(3, 4);  // does not begin before segment 5: of some other timeline 3
  CHECK(recovered_up_to(wal.path, along, Lsn{2 * size + 8}) == Lsn{3 * size + 100});
  wal.add(2, 4);
  wal.add(7, 5);  // of a stranger
  CHECK(recovered_up_to(wal.path, along, Lsn{2 * size + 8}) == Lsn{4 * size});
  wal.add(4, 5);
  CHECK(recovered_up_to(wal.path, along, Lsn{2 * size + 8}) == Lsn{5 * size + 20});
  wal.add(4, 7);  // past a gap
  CHECK(recovered_up_to(wal.path, along, Lsn{2 * size + 8}) == Lsn{5 * size + 20});
  CHECK(recovered_up_to(wal.path, along, Lsn{1 * size}) == Lsn{1 * size});  // its first segment is not here
}

TEST_CASE("Which file a walsender reads") {
  constexpr std::uint64_t megabytes = 16ULL << 20;
  const auto at = [](std::uint64_t segment, std::uint64_t offset) { return Lsn{segment * megabytes + offset}; };
  const WalPosition upstream{
      Timeline{5}, at(0x120, 0), {{Timeline{1}, at(2, 100)}, {Timeline{2}, at(4, 10)}, {Timeline{3}, at(4, 20)}}};
  CHECK(file_sent(upstream, at(1, 0), megabytes) == "000000010000000000000001");
  CHECK(file_sent(upstream, at(2, 99), megabytes) == "000000020000000000000002");  // it ends here
  CHECK(file_sent(upstream, at(2, 100), megabytes) == "000000020000000000000002");
  CHECK(file_sent(upstream, at(4, 0), megabytes) == "000000030000000000000004");
  CHECK(file_sent(upstream, at(4, 10), megabytes) == "000000050000000000000004");
  CHECK(file_sent(upstream, at(4, 20), megabytes) == "000000050000000000000004");
  CHECK(file_sent(upstream, at(0x103, 7), megabytes) == "000000050000000100000003");
}

TEST_CASE("a restore_command is filled in as PostgreSQL does it, and cleans nothing up") {
  CHECK(filled_in("cp /a/%f \"%p\"", "000000010000000000000003", "pg_wal/x") ==
        "cp /a/000000010000000000000003 \"pg_wal/x\"");
  CHECK(filled_in("c %r %%f %d %", "F", "P") == "c 000000000000000000000000 %f %d %");
}

TEST_CASE("the archive is waited for as long as the WAL that is here grows") {
  using namespace std::chrono_literals;
  ArchivePatience patience;
  const ArchivePatience::Clock::time_point begin{};
  for (auto now = begin; now <= begin + 5min; now += 1min) CHECK(patience.lasts(Lsn{100}, now));
  CHECK_FALSE(patience.lasts(Lsn{100}, begin + 5min + 1s));
  CHECK(patience.lasts(Lsn{200}, begin + 6min));
  CHECK(patience.lasts(Lsn{200}, begin + 7min));
  // It was stopped meanwhile.
  CHECK(patience.lasts(Lsn{200}, begin + 60min));
  CHECK(patience.lasts(Lsn{200}, begin + 61min));
}
