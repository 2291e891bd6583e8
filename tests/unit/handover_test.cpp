// Planned hand-overs, and whom an election prefers.
#include <doctest/doctest.h>

#include "monitor/fsm/liveness.hpp"
#include "monitor/fsm/predicates.hpp"
#include "tests/unit/groups.hpp"

using namespace pgvigil;
using namespace pgvigil::testing;
using fsm::decide;

TEST_CASE("a primary that is to be stopped asks for a successor, and only for its own") {
  GroupSnapshot group = pair_of();
  group.request = Request{1, RequestKind::failover, group.nodes[1].id, false, false, Millis{0}};
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->request == fsm::RequestOutcome::refused);
  group.request->node = group.nodes[0].id;
  decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 101);
  CHECK(decision->request == fsm::RequestOutcome::accepted);
}

TEST_CASE("switchover: by request, with everything, or given back") {
  GroupSnapshot group = pair_of();
  group.request = Request{1, RequestKind::failover, {}, false, false, Millis{0}};
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 101);
  apply(group, *decision);
  converge(group, 0);
  converge(group, 1);
  group.nodes[0].pg_running = false;
  group.nodes[0].lsn = Lsn{1001};
  SUBCASE("the candidate has not got it all yet") {
    CHECK_FALSE(decide(group));
  }
  SUBCASE("it has") {
    group.nodes[1].lsn = Lsn{1100};
    decision = decide(group);
    REQUIRE(decision);
    CHECK(decision->rule == 303);
    CHECK(decision->term == Term{2});
    CHECK(goal_in(*decision, 1) == NodeState::demoted);
  }
  SUBCASE("the candidate dies") {
    crash(group.nodes[1]);
    decision = decide(group);
    REQUIRE(decision);
    CHECK(decision->rule == 305);
    CHECK(goal_in(*decision, 1) == NodeState::wait_primary);
    CHECK_FALSE(decision->term);
  }
  SUBCASE("the candidate will never get it: it was not streaming when the former primary stopped") {
    group.nodes[1].streaming = false;
    decision = decide(group);
    REQUIRE(decision);
    CHECK(decision->rule == 305);
    CHECK(goal_in(*decision, 1) == NodeState::wait_primary);
    CHECK(goal_in(*decision, 2) == NodeState::catchingup);
  }
  SUBCASE("the former primary stopped uncleanly: no end of WAL, so no clean hand-over") {
    group.nodes[0].lsn = Lsn{0};
    group.nodes[1].lsn = Lsn{5000};
    CHECK_FALSE(decide(group));
  }
}

TEST_CASE("who has lost its keeper's session takes nothing over") {
  GroupSnapshot group = pair_of();
  group.request = Request{1, RequestKind::failover, {}, false, false, Millis{0}};
  group.nodes[1].session_open = false;  // its last report is older than that
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->request == fsm::RequestOutcome::refused);
}

TEST_CASE("a primary that gets its role back is not lost because it was silent while it had to be") {
  fsm::Liveness liveness;
  GroupSnapshot group = pair_of();
  NodeView& former = group.nodes[0];
  const auto look = [&](Millis now) {
    liveness.look({{NodeId{1}, now.count(), true}, {NodeId{2}, now.count(), true}}, now);
    liveness.fill_in(group, now, [&](NodeId id) {
      return id == former.id ? fsm::ProbeView{ProbeResult::refused, now, Millis{100}}
                             : fsm::ProbeView{ProbeResult::good, now, now};
    });
  };
  look(Millis{0});
  former.goal = NodeState::draining;
  ++former.goal_seq;
  look(Millis{200});
  converge(group, 0);
  former.pg_running = false;
  look(Millis{50000});
  former.goal = NodeState::wait_primary;
  ++former.goal_seq;
  former.pg_running = true;
  former.pg_responding = false;
  look(Millis{50100});
  CHECK_FALSE(fsm::dead(group, former));
  look(Millis{53100});
  CHECK(fsm::dead(group, former));
}

TEST_CASE("a keeper that is heard late all the time is given longer, one that was late once is not") {
  fsm::Liveness liveness;
  GroupSnapshot group = pair_of();
  NodeView& node = group.nodes[1];
  Millis now{0};
  std::int64_t count = 0;
  const auto report_after = [&](Millis gap) {
    now += gap;
    liveness.look({{NodeId{2}, ++count, true}}, now);
  };
  const auto silent_for = [&](Millis age) {
    liveness.fill_in(group, now + age, [](NodeId) { return fsm::ProbeView{}; });
    return !fsm::fresh(group, node);
  };
  for (int i = 0; i < 50; ++i) report_after(Millis{1000});
  CHECK_FALSE(silent_for(Millis{2999}));
  CHECK(silent_for(Millis{3000}));
  report_after(Millis{8000});
  report_after(Millis{1000});
  CHECK(silent_for(Millis{3000}));
  for (int i = 0; i < 5; ++i) report_after(Millis{2600});
  CHECK_FALSE(silent_for(Millis{6000}));
  CHECK(silent_for(Millis{6500}));
  for (int i = 0; i < 50; ++i) report_after(Millis{2900});
  CHECK(silent_for(Millis{9000}));  // never longer than three times the limit
  for (int i = 0; i < 100; ++i) report_after(Millis{1000});
  CHECK(silent_for(Millis{3000}));
  group.timing.unhealthy_after = Millis{1200};  // the preset `fast`: its heartbeat comes every 300 ms
  CHECK_FALSE(silent_for(Millis{1000}));
  report_after(Millis{1000});
  report_after(Millis{300});
  CHECK_FALSE(silent_for(Millis{1100}));
  CHECK(silent_for(Millis{1200}));
}

TEST_CASE("reports that the monitor's database has lost say nothing of the nodes") {
  fsm::Liveness liveness;
  GroupSnapshot group = pair_of();
  const auto look = [&](std::int64_t count, Millis now) {
    liveness.look({{NodeId{1}, count, true}, {NodeId{2}, count, true}}, now);
    liveness.fill_in(group, now, [&](NodeId) { return fsm::ProbeView{ProbeResult::good, now, now}; });
  };
  look(7, Millis{0});
  look(8, Millis{1000});
  // Both sessions are open again, before the first report has come in by them.
  for (NodeView& node : group.nodes) node.pg_running = node.pg_responding = node.streaming = false;
  look(0, Millis{1500});
  CHECK_FALSE(fsm::fresh(group, group.nodes[0]));
  CHECK_FALSE(fsm::dead(group, group.nodes[0]));
  CHECK_FALSE(decide(group));
  look(1, Millis{1600});
  CHECK(fsm::dead(group, group.nodes[0]));  // now it is
}

TEST_CASE("an election waits a moment for the vote of the node with the highest priority") {
  GroupSnapshot group = three();
  group.names.back().names.members = {NodeId{2}};
  group.nodes[2].candidate_priority = group.nodes[1].candidate_priority + 1;
  crash(group.nodes[0]);
  apply(group, *decide(group));
  converge(group, 1);
  CHECK_FALSE(decide(group));
  SUBCASE("it comes") {
    converge(group, 2);
    CHECK(goal_in(*decide(group), 3) == NodeState::wait_primary);
  }
  SUBCASE("it does not come") {
    group.nodes[2].goal_age = group.timing.preferred_vote;
    CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
  }
  SUBCASE("it cannot come") {
    group.nodes[2].pg_responding = false;
    CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
  }
}

TEST_CASE("a primary whose disk is full is replaced by a standby whose is not") {
  GroupSnapshot group = three();
  group.nodes[0].disk_full = true;
  CHECK(fsm::out_of_space(group, group.nodes[0]));
  SUBCASE("the least of two may be full as well") {
    group.nodes[1].disk_full = true;
  }
  SUBCASE("who has priority 0 does not count") {
    group.nodes[1].candidate_priority = 0;
  }
  SUBCASE("nobody could do better") {
    group.nodes[1].disk_full = group.nodes[2].disk_full = true;
    CHECK_FALSE(fsm::out_of_space(group, group.nodes[0]));
    CHECK_FALSE(decide(group));
    return;
  }
  SUBCASE("what it has said is old: a primary that is not heard is judged otherwise") {
    group.nodes[0].report_age = Millis{4000};
    CHECK_FALSE(fsm::out_of_space(group, group.nodes[0]));
    return;
  }
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 301);
  CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);
  apply(group, *decision);
  converge(group, 1);
  converge(group, 2);
  decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 3) == NodeState::wait_primary);
}

TEST_CASE("who has no room takes over only where nobody has any") {
  GroupSnapshot group = three();
  group.nodes[1].candidate_priority = 90;
  group.nodes[1].disk_full = true;
  CHECK(fsm::switchover_candidate(group, group.nodes[0]) == &group.nodes[2]);
  crash(group.nodes[0]);
  apply(group, *decide(group));
  converge(group, 1);
  converge(group, 2);
  SUBCASE("another one has room, whatever its priority") {
    CHECK(goal_in(*decide(group), 3) == NodeState::wait_primary);
  }
  SUBCASE("nobody has") {
    group.nodes[2].disk_full = true;
    CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
  }
  SUBCASE("the one that has room must not take over") {
    group.nodes[2].candidate_priority = 0;
    CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
  }
}

TEST_CASE("no election waits for the vote of a node that has no room") {
  GroupSnapshot group = three();
  group.names.back().names.members = {NodeId{2}};
  group.nodes[2].candidate_priority = 90;
  group.nodes[2].disk_full = true;
  crash(group.nodes[0]);
  apply(group, *decide(group));
  converge(group, 1);
  CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
}

TEST_CASE("who is told to stop votes when it has stopped") {
  GroupSnapshot group = three();
  crash(group.nodes[0]);
  apply(group, *decide(group));
  converge(group, 1);
  converge(group, 2);
  apply(group, *decide(group));  // n2 is chosen
  REQUIRE(group.nodes[1].goal == NodeState::wait_primary);
  group.nodes[1].goal_age = 10 * group.timing.drain_timeout;  // it may have been promoted, and has not said so
  apply(group, *decide(group));
  REQUIRE(group.nodes[1].goal == NodeState::demote_timeout);
  CHECK(!(decide(group) && goal_in(*decide(group), 2) == NodeState::report_lsn));
  converge(group, 1);
  group.nodes[1].pg_running = group.nodes[1].pg_responding = false;
  CHECK(goal_in(*decide(group), 2) == NodeState::report_lsn);
}
