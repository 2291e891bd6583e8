// What the keeper does with the files of pg_wal.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "keeper/actions/archive.hpp"
#include "keeper/actions/stream_patience.hpp"
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

  // `holds`: the address in its first page; `written_on`: the timeline there.
  void add(unsigned timeline, unsigned number, std::uint64_t holds, unsigned written_on = 0) const {
    char name[32];
    std::snprintf(name, sizeof name, "%08X%08X%08X", timeline, 0U, number);
    std::array<char, size> content{};
    std::memcpy(content.data() + 4, &written_on, sizeof written_on);
    std::memcpy(content.data() + 8, &holds, sizeof holds);
    std::ofstream(path / name, std::ios::binary).write(content.data(), content.size());
  }
  void add(unsigned timeline, unsigned number) const { add(timeline, number, number * size); }
  void add_history(unsigned timeline, const std::string& text) const {
    char name[32];
    std::snprintf(name, sizeof name, "%08X.history", timeline);
    std::ofstream(path / name) << text;
  }
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

TEST_CASE("WAL that a node has alone is found on each timeline that led to where it stands") {
  const Wal wal;
  for (const unsigned timeline : {1U, 2U, 3U, 9U}) {
    for (unsigned number = 1; number <= 8; ++number) wal.add(timeline, number);
  }
  const WalPosition position{
      Timeline{3}, Lsn{7 * size}, {{Timeline{1}, Lsn{2 * size + 10}}, {Timeline{2}, Lsn{4 * size + 10}}}};
  std::vector<std::string> names;
  for (const Segment& segment : segments_along(wal.path, position, Lsn{3 * size + 10}))
    names.push_back(std::to_string(segment.timeline.value) + "/" + std::to_string(segment.position / size));
  CHECK(names == std::vector<std::string>{"2/3", "3/3", "2/4", "3/4", "3/5", "3/6", "3/7", "3/8"});
}

TEST_CASE("On which timeline WAL was received is seen when no walreceiver is there any more") {
  const Wal wal;
  const WalSizes sizes{size, size};
  const WalPosition known{Timeline{1}, Lsn{6 * size + 50}, {}};
  const auto timeline = [&](std::uint64_t lsn) {
    const auto found = received_on(wal.path, {Timeline{1}, Lsn{lsn}, {}}, sizes);
    return found ? found->timeline.value : 0;
  };
  wal.add_history(2, "1\t0/5014\tswitch\n");  // 5 * size + 20
  for (unsigned number = 3; number <= 5; ++number) wal.add(1, number);
  CHECK(timeline(6 * size + 50) == 0);  // a history alone says nothing

  SUBCASE("the file that begins with the ancestor's pages counts from the switch on") {
    wal.add(2, 5, 5 * size, 1);
    CHECK(timeline(5 * size + 20) == 0);
    CHECK(timeline(5 * size + 21) == 2);
    CHECK(timeline(6 * size) == 2);  // the byte before is the last one here
    CHECK(timeline(6 * size + 1) == 0);
  }
  SUBCASE("later ones are of its own pages") {
    wal.add(2, 6, 6 * size, 2);
    const auto found = received_on(wal.path, known, sizes);
    REQUIRE(found);
    CHECK(found->timeline == Timeline{2});
    CHECK(found->lsn == known.lsn);
    CHECK(found->history == History{{Timeline{1}, Lsn{5 * size + 20}}});
  }
  SUBCASE("not those made ready for WAL to come") {
    wal.add(2, 6, 3 * size, 2);
    CHECK(timeline(6 * size + 50) == 0);
    wal.add(2, 6, 6 * size, 1);
    CHECK(timeline(6 * size + 50) == 0);
  }
  SUBCASE("the latest one of which there is WAL, past reserved numbers") {
    wal.add(2, 6, 6 * size, 2);
    wal.add_history(3, "1\t0/5014\treserved\n");
    CHECK(timeline(6 * size + 50) == 2);
    wal.add_history(4, "1\t0/5014\tswitch\n");
    wal.add(4, 6, 6 * size, 4);
    CHECK(timeline(6 * size + 50) == 4);
  }
  SUBCASE("not those that do not go on from what is known") {
    wal.add_history(2, "7\t0/5014\tswitch\n");
    wal.add(2, 6, 6 * size, 2);
    CHECK(timeline(6 * size + 50) == 0);
    wal.add_history(2, "1\t0/9000\tswitch\n");
    CHECK(timeline(6 * size + 50) == 0);
  }
  SUBCASE("several pages a segment") {
    char name[] = "000000020000000000000002";
    std::array<char, 2 * size> content{};
    const std::uint64_t address = 5 * size;
    const unsigned written_on = 2;
    std::memcpy(content.data() + size + 4, &written_on, sizeof written_on);
    std::memcpy(content.data() + size + 8, &address, sizeof address);
    std::ofstream(wal.path / name, std::ios::binary).write(content.data(), content.size());
    const auto found = received_on(wal.path, {Timeline{1}, Lsn{5 * size + 100}, {}}, {2 * size, size});
    CHECK(found.has_value());
    CHECK_FALSE(received_on(wal.path, {Timeline{1}, Lsn{6 * size + 100}, {}}, {2 * size, size}).has_value());
  }
}

TEST_CASE("Histories that keep a standby from its upstream are those that the upstream has not come through") {
  const Wal wal;
  const WalPosition upstream{Timeline{4}, Lsn{9 * size}, {{Timeline{1}, Lsn{2 * size}}, {Timeline{3}, Lsn{5 * size}}}};
  wal.add(5, 3);
  wal.add_history(2, "1\t0/2000\treserved\n");
  wal.add_history(3, "1\t0/2000\tswitch\n");
  wal.add_history(4, "1\t0/2000\tswitch\n3\t0/5000\tswitch\n");
  wal.add_history(5, "4\t0/9000\tswitch\n");
  const auto names = [&](unsigned local, const WalPosition& from) {
    std::vector<std::string> found;
    for (const fs::path& file : stray_histories(wal.path, Timeline{local}, from)) found.push_back(file.filename());
    return found;
  };
  CHECK(names(1, upstream) == std::vector<std::string>{"00000002.history", "00000005.history"});
  CHECK(names(2, upstream) == std::vector<std::string>{"00000005.history"});
  CHECK(names(5, upstream).empty());
  wal.add_history(3, "1\t0/3000\tanother\n");
  CHECK(names(2, upstream) == std::vector<std::string>{"00000003.history", "00000005.history"});
}

TEST_CASE("a standby that stands still is helped once") {
  using namespace std::chrono_literals;
  StreamPatience patience;
  CHECK_FALSE(patience.ends(Lsn{100}, 1000s));
  CHECK_FALSE(patience.ends(Lsn{100}, 1005s));
  CHECK(patience.ends(Lsn{100}, 1010s));
  CHECK_FALSE(patience.ends(Lsn{100}, 1015s));
  CHECK_FALSE(patience.ends(Lsn{200}, 1020s));
  CHECK_FALSE(patience.ends(Lsn{200}, 1025s));
  CHECK(patience.ends(Lsn{200}, 1030s));
  CHECK_FALSE(patience.ends(Lsn{200}, 2000s));  // it streamed meanwhile
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
