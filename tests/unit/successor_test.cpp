// What a group goes on with when the one that was to take over is lost in the middle: whoever has stopped, or was about
// to follow, holds WAL too.
#include <doctest/doctest.h>

#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/liveness.hpp"
#include "monitor/fsm/predicates.hpp"
#include "tests/unit/groups.hpp"

using namespace pgvigil;
using fsm::decide;

using namespace pgvigil::testing;

namespace {

// n1 has handed over to n2, which is to be promoted.
GroupSnapshot handed_over() {
  GroupSnapshot group = pair_of();
  group.term = Term{2};
  group.promised_timeline = Timeline{2};
  NodeView& former = group.nodes[0];
  former.goal = former.reported = NodeState::demoted;
  former.pg_running = former.pg_responding = former.streaming = false;
  former.reported_term = Term{2};
  NodeView& heir = group.nodes[1];
  heir.goal = NodeState::wait_primary;
  heir.goal_seq = 2;
  heir.reported = NodeState::prepare_promotion;
  heir.streaming = false;
  group.names[0].heir = heir.id;
  group.names.push_back(NamesInForce{SyncNames{1, {NodeId{1}}}, heir.id});
  group.names_version = 2;
  return group;
}

Request by_force() {
  return Request{7, RequestKind::failover, {}, true, false, Millis{0}};
}

}  // namespace

TEST_CASE("the successor dies, or cannot be promoted: the former primary, which has stopped, is asked for its vote") {
  GroupSnapshot group = handed_over();
  CHECK_FALSE(decide(group));
  SUBCASE("dead") {
    crash(group.nodes[1]);
    CHECK(decide(group)->rule == 301);
  }
  SUBCASE("alive, and not promoted in time") {
    group.nodes[1].goal_age = group.timing.drain_timeout;
    CHECK(decide(group)->rule == 307);
  }
  apply(group, *decide(group));
  CHECK(group.nodes[1].goal == NodeState::demote_timeout);
  group.nodes[0].reported_term = group.term;
  const auto asked = decide(group);
  REQUIRE(asked);
  CHECK(asked->rule == 319);
  apply(group, *asked);
  converge(group, 0);
  group.nodes[0].pg_running = group.nodes[0].pg_responding = true;
  REQUIRE(decide(group));
  CHECK(goal_in(*decide(group), 1) == NodeState::wait_primary);
}

TEST_CASE("the successor dies before the former primary has come back to it") {
  GroupSnapshot group = handed_over();
  group.nodes[1].reported = NodeState::wait_primary;
  group.nodes[1].reported_seq = 2;
  group.nodes[1].reported_term = Term{2};
  apply(group, *decide(group));
  REQUIRE(group.nodes[0].goal == NodeState::catchingup);
  crash(group.nodes[1]);
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 301);
}

TEST_CASE("the successor has taken writes alone: only by choice") {
  GroupSnapshot group = handed_over();
  group.names.back().names = SyncNames{};
  crash(group.nodes[1]);
  CHECK_FALSE(decide(group));
  group.request = by_force();
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 301);
}

TEST_CASE("a vote of a node that has died since stops no election that does not need it") {
  GroupSnapshot group = three();
  crash(group.nodes[0]);
  group.names.back().names = SyncNames{2, {NodeId{2}, NodeId{3}}};  // one of them is enough
  group.nodes[2].lsn = Lsn{2000};
  apply(group, *decide(group));
  converge(group, 1);
  converge(group, 2);
  CHECK(goal_in(*decide(group), 3) == NodeState::wait_primary);
  crash(group.nodes[2]);
  REQUIRE(decide(group));
  CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
  group.names.back().names.required = 1;  // both are needed: what the dead one has may be acknowledged
  CHECK_FALSE(decide(group));
}

TEST_CASE("a choice by force that nobody had to make is answered by the election") {
  GroupSnapshot group = pair_of();
  crash(group.nodes[0]);
  group.request = by_force();
  apply(group, *decide(group));
  converge(group, 1);
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 311);
  CHECK(decision->request == fsm::RequestOutcome::accepted);
}

TEST_CASE("who was chosen by force and has died since is not promoted") {
  GroupSnapshot group = pair_of(0);
  crash(group.nodes[0]);
  group.nodes[0].report_age = Millis{20000};
  group.request = by_force();
  apply(group, *decide(group));
  converge(group, 1);
  apply(group, *decide(group));
  REQUIRE(group.nodes[1].goal == NodeState::stop_replication);
  group.request.reset();
  converge(group, 1);
  CHECK(decide(group)->rule == 317);
  crash(group.nodes[1]);
  CHECK_FALSE(decide(group));
}

TEST_CASE("a standby that is to be dropped is kept while its primary is not well") {
  GroupSnapshot group = three();
  Request request;
  request.id = 1;
  request.kind = RequestKind::drop_node;
  request.node = NodeId{3};
  group.request = request;
  apply(group, *decide(group));
  converge(group, 2);
  REQUIRE(group.nodes[2].goal == NodeState::wait_maintenance);
  group.names.push_back(NamesInForce{SyncNames{1, {NodeId{2}}}, NodeId{1}});
  ++group.names_version;  // not confirmed yet
  group.nodes[0].report_age = Millis{3100};
  CHECK_FALSE(decide(group));
  crash(group.nodes[0]);
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 301);
  CHECK(goal_in(*decide(group), 3) == NodeState::report_lsn);
}

TEST_CASE("a primary that crashes while it hands over ends the hand-over when that is sure") {
  GroupSnapshot group = pair_of();
  group.nodes[0].goal = group.nodes[0].reported = NodeState::draining;
  group.nodes[0].pg_running = group.nodes[0].pg_responding = false;
  group.nodes[0].lsn = Lsn{};
  group.nodes[1].goal = group.nodes[1].reported = NodeState::prepare_promotion;
  group.nodes[1].streaming = false;
  group.nodes[1].not_streaming_for = Millis{1900};
  CHECK_FALSE(decide(group));
  group.nodes[1].not_streaming_for = Millis{2000};
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 305);
  CHECK(goal_in(*decision, 2) == NodeState::report_lsn);
  group.names.back().names = SyncNames{};  // only it has everything
  decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 1) == NodeState::wait_primary);
}

TEST_CASE("a monitor process that has just begun gives up no hand-over") {
  GroupSnapshot group = pair_of();
  group.nodes[0].goal = NodeState::draining;
  group.nodes[0].goal_seq = 2;
  group.nodes[1].goal = group.nodes[1].reported = NodeState::prepare_promotion;
  for (NodeView& node : group.nodes) node.ever_reported = false;
  CHECK_FALSE(decide(group));
  for (NodeView& node : group.nodes) node.report_age = Millis{3000};
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 305);
}

TEST_CASE("a port that never let the monitor in proves nothing by refusing it") {
  fsm::Liveness liveness;
  GroupSnapshot group = pair_of();
  ProbeResult result = ProbeResult::refused;
  const auto look = [&](Millis now, bool open) {
    liveness.look({{NodeId{1}, now.count(), open}, {NodeId{2}, now.count(), true}}, now);
    liveness.fill_in(group, now, [&](NodeId) { return fsm::ProbeView{result, now, now}; });
  };
  look(Millis{1000}, true);
  look(Millis{2000}, false);
  CHECK_FALSE(fsm::dead(group, group.nodes[0]));
  result = ProbeResult::good;
  look(Millis{3000}, true);
  result = ProbeResult::refused;
  look(Millis{4000}, false);
  CHECK(fsm::dead(group, group.nodes[0]));
}
