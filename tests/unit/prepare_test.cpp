// What is done with a PGDATA before it streams.
#include "keeper/fsm/prepare.hpp"

#include <doctest/doctest.h>

using namespace pgvigil;
using namespace pgvigil::keeper;

namespace {

// The upstream: timeline 3, on which it has been since 300; 2 began at 200.
const UpstreamIdentity upstream{"42", {Timeline{3}, Lsn{400}, {{Timeline{1}, Lsn{200}}, {Timeline{2}, Lsn{300}}}}};

DataDirectory directory_at(std::uint32_t timeline, std::uint64_t lsn, History history = {}) {
  DataDirectory directory;
  directory.has_cluster = true;
  directory.system_identifier = "42";
  directory.local.position = {Timeline{timeline}, Lsn{lsn}, std::move(history)};
  return directory;
}

Preparation chosen(const DataDirectory& directory) {
  return choose_preparation(directory, upstream, "up").what;
}

}  // namespace

TEST_CASE("A standby streams when all that it has is part of its upstream's history") {
  CHECK(chosen(directory_at(3, 350, upstream.position.history)) == Preparation::none);
  CHECK(chosen(directory_at(1, 150)) == Preparation::none);
  CHECK(chosen(directory_at(1, 200)) == Preparation::none);  // up to where the next timeline begins
  CHECK(chosen(directory_at(1, 201)) == Preparation::rewind);
  CHECK(chosen(directory_at(2, 301, {{Timeline{1}, Lsn{200}}})) == Preparation::rewind);
}

TEST_CASE("Without the WAL that follows nothing but a copy helps") {
  for (const std::uint64_t lsn : {150U, 201U}) {
    DataDirectory directory = directory_at(1, lsn);
    directory.wal_available = false;
    CHECK(chosen(directory) == Preparation::base_backup);
  }
  DataDirectory same = directory_at(3, 350, upstream.position.history);
  same.wal_available = false;
  CHECK(chosen(same) == Preparation::base_backup);
}

TEST_CASE("Nobody knows how far its WAL goes: it is not given to pg_rewind") {
  DataDirectory directory = directory_at(1, 150);
  directory.local.exact = false;
  CHECK(chosen(directory) == Preparation::base_backup);
}

TEST_CASE("What must not be overwritten is left alone") {
  DataDirectory stranger = directory_at(1, 150);
  stranger.system_identifier = "43";
  CHECK(chosen(stranger) == Preparation::refuse);
  CHECK(chosen(directory_at(4, 350, {{Timeline{1}, Lsn{100}}})) == Preparation::refuse);  // newer, and unknown there
  DataDirectory filled;
  CHECK(chosen(filled) == Preparation::refuse);  // no cluster, and not empty
  DataDirectory foreign = directory_at(4, 350, {{Timeline{1}, Lsn{100}}});
  foreign.foreign_promotion = true;
  CHECK(chosen(foreign) == Preparation::base_backup);
  foreign.own_wal_whole = false;
  CHECK(chosen(foreign) == Preparation::refuse);
}

TEST_CASE("A timeline of the same number with other ancestors is copied anew") {
  CHECK(chosen(directory_at(3, 350, {{Timeline{1}, Lsn{100}}})) == Preparation::base_backup);
  DataDirectory unfinished = directory_at(1, 150);
  unfinished.copy_unfinished = true;
  CHECK(chosen(unfinished) == Preparation::base_backup);
  DataDirectory empty;
  empty.empty = true;
  CHECK(chosen(empty) == Preparation::base_backup);
}
