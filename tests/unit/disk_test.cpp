// When a disk counts as one that does not answer (keeper/service/disk.hpp).
#include "keeper/service/disk.hpp"

#include <doctest/doctest.h>

using pgvigil::Lsn;
using pgvigil::keeper::DiskPatience;
using Millis = DiskPatience::Millis;

namespace {

struct Disk {
  DiskPatience patience;
  Millis now{0};
  Lsn flushed{100};

  void pass(Millis time, bool asked) {
    for (const Millis end = now + time; now < end;) {
      now += Millis{250};
      patience.tick(flushed, asked, now);
    }
  }
};

}  // namespace

TEST_CASE("a disk that has not answered for two seconds hangs") {
  Disk disk;
  disk.pass(Millis{1500}, false);
  CHECK(disk.patience.at_rest());
  disk.pass(Millis{1750}, true);
  CHECK_FALSE(disk.patience.over());
  disk.pass(Millis{250}, true);
  CHECK(disk.patience.over());
  CHECK(disk.patience.silent_for() == Millis{2000});
  disk.pass(Millis{250}, false);  // the answer
  CHECK_FALSE(disk.patience.over());
}

TEST_CASE("what PostgreSQL writes is an answer") {
  Disk disk;
  disk.pass(Millis{1500}, false);
  disk.pass(Millis{1750}, true);
  ++disk.flushed.value;
  disk.pass(Millis{1500}, true);
  CHECK_FALSE(disk.patience.over());
  ++disk.flushed.value;
  disk.pass(Millis{500}, false);
  CHECK_FALSE(disk.patience.at_rest());  // nobody needs to ask
}

TEST_CASE("a keeper that was held up has not waited") {
  Disk disk;
  disk.pass(Millis{1500}, false);
  disk.pass(Millis{250}, true);
  disk.now += Millis{60000};
  disk.pass(Millis{250}, true);
  CHECK_FALSE(disk.patience.over());
}

TEST_CASE("room runs out at a twentieth of the disk, and no later than at four segments") {
  using pgvigil::keeper::Room;
  constexpr std::uintmax_t mb = 1u << 20;
  CHECK(Room{63 * mb, 300 * mb}.runs_out());
  CHECK_FALSE(Room{65 * mb, 300 * mb}.runs_out());
  CHECK(Room{490 * mb, 10000 * mb}.runs_out());
  CHECK_FALSE(Room{510 * mb, 10000 * mb}.runs_out());
  CHECK_FALSE(Room{17000 * mb, 10000000 * mb}.runs_out());
  CHECK(Room{100 * mb, 300 * mb}.is_much(21 * mb));
  CHECK_FALSE(Room{100 * mb, 300 * mb}.is_much(20 * mb));
  CHECK(pgvigil::keeper::in_bytes(300 * mb) == "300 MB");
  CHECK(pgvigil::keeper::in_bytes(1536 * mb) == "1.5 GB");
}
