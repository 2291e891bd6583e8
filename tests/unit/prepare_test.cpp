// What is done with a PGDATA before it streams, and what it tells of itself.
#include "keeper/fsm/prepare.hpp"

#include <doctest/doctest.h>

#include "keeper/fsm/core.hpp"

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
  // The upstream's timeline 2 is another one: its number was reserved, or somebody else's promotion was given up.
  CHECK(chosen(directory_at(2, 250, {{Timeline{1}, Lsn{150}}})) == Preparation::rewind);
  CHECK(chosen(directory_at(2, 250, {{Timeline{1}, Lsn{200}}})) == Preparation::none);
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

TEST_CASE("A stopped PGDATA that was written to is somebody's doing when nobody had ordered it") {
  const auto flagged = [](NodeState reported, NodeState goal, std::uint32_t seen_on, std::vector<Timeline> own) {
    KeeperState state;
    state.reported = reported;
    state.goal.state = goal;
    state.timeline = Timeline{seen_on};
    state.own_timelines = std::move(own);
    Core core(state, false, Millis{0});
    const bool save = core.saw_written(Timeline{3}) == Core::Save::yes;
    CHECK(save == core.no_vote().has_value());
    return save;
  };
  const auto secondary = NodeState::secondary;
  CHECK(flagged(secondary, secondary, 3, {}));
  CHECK(flagged(secondary, secondary, 3, {Timeline{1}}));  // a primary once, and a standby since
  CHECK(flagged(NodeState::maintenance, NodeState::catchingup, 3, {}));
  CHECK(flagged(secondary, NodeState::report_lsn, 2, {}));  // promoted by hand
  CHECK_FALSE(flagged(secondary, NodeState::wait_primary, 3, {}));
  CHECK_FALSE(flagged(secondary, NodeState::report_lsn, 3, {Timeline{4}}));  // promoted as 4, no checkpoint since
  CHECK_FALSE(flagged(NodeState::maintenance, NodeState::catchingup, 3, {Timeline{3}}));  // a former primary at rest
  CHECK_FALSE(flagged(NodeState::catchingup, NodeState::catchingup, 3, {Timeline{3}}));   // about to be overwritten
  CHECK_FALSE(flagged(NodeState::catchingup, NodeState::catchingup, 0, {}));              // just copied
  for (const NodeState former : {NodeState::primary, NodeState::demoted, NodeState::draining})
    CHECK_FALSE(flagged(former, NodeState::catchingup, 3, {}));
}
