// What must not hold a group up for ever: standbys that hang, favourites that lack much, chosen nodes that do not come,
// partial partitions, a monitor that heard nobody for a while, a keeper that restarts while there is no monitor.
#include <doctest/doctest.h>

#include <algorithm>

#include "keeper/fsm/core.hpp"
#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/explain.hpp"
#include "monitor/fsm/liveness.hpp"
#include "monitor/fsm/predicates.hpp"
#include "tests/unit/groups.hpp"

using namespace pgvigil;
using namespace pgvigil::testing;
using fsm::decide;
using keeper::Core;

namespace {

keeper::LocalFacts standby_facts() {
  keeper::LocalFacts facts;
  facts.in_recovery = facts.streaming = true;
  facts.timeline = Timeline{1};
  facts.lsn = Lsn{1000};
  return facts;
}

keeper::LocalFacts primary_facts() {
  keeper::LocalFacts facts = standby_facts();
  facts.in_recovery = false;
  return facts;
}

// A primary that waits for one of n2 and n3, as the state file of a keeper that is started has it.
keeper::KeeperState synchronous_primary() {
  keeper::KeeperState state;
  state.node = NodeId{1};
  state.reported = NodeState::primary;
  state.term = Term{2};
  state.goal.state = NodeState::primary;
  state.goal.term = Term{2};
  state.goal.seq = state.reported_seq = 5;
  state.goal.names = SyncNames{1, {NodeId{2}, NodeId{3}}};
  state.goal.names_version = 4;
  state.goal.lease_seconds = 10;
  state.timeline = Timeline{1};
  return state;
}

void carry_out_plan(Core& core, Millis now) {
  for (int i = 0; i < 20; ++i) {
    const Core::Work work = core.next(now);
    if (work.kind == Core::Work::Kind::nothing) return;
    if (work.kind == Core::Work::Kind::settle) {
      core.settled({}, now);
    } else {
      core.done();
    }
  }
}

// n1 is gone, n2 and n3 have voted.
GroupSnapshot election() {
  GroupSnapshot group = three();
  group.term = Term{2};
  vanish(group.nodes[0]);
  group.nodes[0].goal = NodeState::demote_timeout;
  group.nodes[0].goal_seq = 2;
  for (const std::size_t voter : {1u, 2u}) {
    NodeView& node = group.nodes[voter];
    node.goal = node.reported = NodeState::report_lsn;
    node.reported_term = Term{2};
    node.streaming = false;
  }
  return group;
}

// n1 is gone, n2 was chosen to take over and has not said that it has.
GroupSnapshot chosen_and_not_come() {
  GroupSnapshot group = three();
  group.term = Term{2};
  vanish(group.nodes[0]);
  group.nodes[0].goal = NodeState::demote_timeout;
  NodeView& chosen = group.nodes[1];
  chosen.goal = NodeState::wait_primary;
  chosen.goal_seq = 2;
  chosen.reported = NodeState::report_lsn;
  chosen.reported_term = Term{2};
  return group;
}

}  // namespace

TEST_CASE("who hangs does not stream, whatever it has said last") {
  keeper::KeeperState state;
  state.reported = state.goal.state = NodeState::secondary;
  Core core(state, true, Millis{0});
  core.saw(standby_facts(), Millis{1000});
  CHECK(core.report(Millis{1100}).streaming);
  CHECK(core.report(Millis{2900}).streaming);  // a slow answer is none yet
  CHECK_FALSE(core.report(Millis{3000}).streaming);
  core.saw(standby_facts(), Millis{3100});
  CHECK(core.report(Millis{3100}).streaming);
}

TEST_CASE("a synchronous primary whose keeper restarts while there is no monitor goes on") {
  Core core(synchronous_primary(), true, Millis{0});
  core.saw(primary_facts(), Millis{100});
  carry_out_plan(core, Millis{200});
  REQUIRE(core.names_to_confirm());
  REQUIRE(core.names_confirmed(4));
  for (std::int64_t at = 1000; at < 60000; at += 500) {
    core.saw(primary_facts(), Millis{at});
    CHECK_FALSE(core.must_fence(Millis{at}));
  }
  keeper::LocalFacts alone = primary_facts();
  alone.streaming = false;
  core.saw(alone, Millis{60000});
  core.saw(alone, Millis{70000});
  CHECK(core.must_fence(Millis{70000}));
}

TEST_CASE("a synchronous primary that has to start without a monitor is given the time to find its standbys") {
  Core core(synchronous_primary(), false, Millis{0});
  CHECK(core.no_start(false, false, Millis{9000}));
  REQUIRE_FALSE(core.no_start(false, false, Millis{10000}));
  const std::string names = to_guc(core.goal().names);
  core.wrote_names(names);
  core.starting(names);
  core.saw_process(true, Millis{10100});
  CHECK_FALSE(core.must_fence(Millis{10150}));  // it recovers; nobody can have come
  SUBCASE("with its list in force from the start") {
    core.started(false, true, Millis{10200});
    CHECK_FALSE(core.must_fence(Millis{10300}));
    keeper::LocalFacts alone = primary_facts();
    alone.streaming = false;
    core.saw(alone, Millis{20100});
    CHECK_FALSE(core.must_fence(Millis{20100}));
    core.saw(alone, Millis{20300});
    CHECK(core.must_fence(Millis{20300}));  // nobody has come
    core.saw(primary_facts(), Millis{20400});
    CHECK_FALSE(core.must_fence(Millis{20500}));
  }
  SUBCASE("another list that nobody has seen in force protects nothing") {
    core.started(false, true, Millis{10200});
    core.wrote_names("ANY 1 (pgvigil_standby_2)");
    core.wrote_names(names);
    CHECK(core.must_fence(Millis{10300}));
  }
}

TEST_CASE("a synchronous primary that nobody came to starts again when a standby is back, monitor or not") {
  Core core(synchronous_primary(), true, Millis{0});
  keeper::LocalFacts facts = primary_facts();
  core.saw(facts, Millis{100});
  carry_out_plan(core, Millis{200});
  REQUIRE(core.names_to_confirm());
  REQUIRE(core.names_confirmed(4));
  CHECK_FALSE(core.asks_for_standbys(Millis{50000}));  // it runs
  facts.streaming = false;
  std::int64_t at = 10100;
  const auto stop = [&] {
    core.saw(facts, Millis{at});
    REQUIRE(core.must_fence(Millis{at}));
    core.fenced("cut off", Millis{at});
    core.fenced("cut off", Millis{at + 200});  // it took its time
    CHECK_FALSE(core.asks_for_standbys(Millis{at + 3600000}));
    core.saw_process(false, Millis{at + 300});
  };
  const auto run = [&] {
    const std::string names = to_guc(core.goal().names);
    CHECK_FALSE(core.no_start(false, false, Millis{at}));
    core.wrote_names(names);
    core.starting(names);
    core.started(false, true, Millis{at});
    carry_out_plan(core, Millis{at});
  };
  // Twice in vain: the second time it asks later.
  for (const std::int64_t pause : {10000, 20000}) {
    stop();
    CHECK(core.next(Millis{at + pause - 1}).kind == Core::Work::Kind::nothing);
    CHECK_FALSE(core.asks_for_standbys(Millis{at + pause - 1}));
    at += pause;
    REQUIRE(core.asks_for_standbys(Millis{at}));
    CHECK(core.no_start(false, false, Millis{at}));
    CHECK_FALSE(core.found_standby(Timeline{facts.timeline.value + 1}, Millis{at}));  // it follows another one
    CHECK(core.no_start(false, false, Millis{at}));
    CHECK(core.found_standby(facts.timeline, Millis{at}));
    CHECK_FALSE(core.found_standby(facts.timeline, Millis{at}));
    CHECK(core.next(Millis{at}).kind == Core::Work::Kind::step);
    run();
    CHECK_FALSE(core.must_fence(Millis{at + 9000}));
    at += 10000;
  }
  // Once one has streamed, the patience is that of the first time.
  facts.streaming = true;
  core.saw(facts, Millis{at});
  CHECK_FALSE(core.must_fence(Millis{at}));
  facts.streaming = false;
  at += 10000;
  stop();
  CHECK(core.asks_for_standbys(Millis{at + 10000}));
}

TEST_CASE("whose commits wait for nobody starts for no standby") {
  keeper::KeeperState state = synchronous_primary();
  state.goal.names = SyncNames{};
  Core core(state, true, Millis{0});
  core.saw(primary_facts(), Millis{100});
  carry_out_plan(core, Millis{200});
  core.saw(primary_facts(), Millis{10100});
  REQUIRE(core.must_fence(Millis{10100}));
  core.fenced("its lease is over", Millis{10100});
  core.saw_process(false, Millis{10200});
  CHECK_FALSE(core.asks_for_standbys(Millis{100000}));
  CHECK_FALSE(core.found_standby(Timeline{1}, Millis{100000}));
}

TEST_CASE("a smaller number that may have come into force is remembered until a larger one is confirmed") {
  keeper::KeeperState state = synchronous_primary();
  state.goal.names.required = 2;
  Core core(state, true, Millis{0});
  core.saw(primary_facts(), Millis{100});
  carry_out_plan(core, Millis{200});
  REQUIRE(core.names_to_confirm());
  CHECK(core.names_to_confirm()->stricter);
  REQUIRE(core.names_confirmed(4));
  Goal goal = core.goal();
  for (const int required : {1, 2}) {
    goal.names.required = required;
    ++goal.names_version;
    core.answered(goal, Millis{300}, Millis{310});
    carry_out_plan(core, Millis{400});
  }
  REQUIRE(core.names_to_confirm());
  CHECK(core.names_to_confirm()->stricter);
}

TEST_CASE("a favourite that lacks much WAL is passed over for a node that has everything") {
  GroupSnapshot group = election();
  group.nodes[2].candidate_priority = 100;
  group.nodes[1].lsn = Lsn{100u << 20};
  group.nodes[2].lsn = Lsn{90u << 20};
  const auto little = decide(group);
  REQUIRE(little);
  CHECK(goal_in(*little, 3) == NodeState::fast_forward);
  group.nodes[2].lsn = Lsn{50u << 20};
  const auto much = decide(group);
  REQUIRE(much);
  CHECK(goal_in(*much, 2) == NodeState::wait_primary);
  group.nodes[1].candidate_priority = 0;  // nobody else may
  CHECK(goal_in(*decide(group), 3) == NodeState::fast_forward);
}

TEST_CASE("a fetch that does not end gives way to the node that has everything, not to the next favourite") {
  GroupSnapshot group = election();
  group.nodes.push_back(node(4, NodeState::report_lsn));
  group.nodes[3].reported_term = Term{2};
  group.names.back().names.members.push_back(NodeId{4});
  group.nodes[1].candidate_priority = 80;
  group.nodes[2].candidate_priority = 90;
  group.nodes[3].lsn = Lsn{2000};
  apply(group, *decide(group));
  NodeView& favourite = group.nodes[2];
  REQUIRE(favourite.goal == NodeState::fast_forward);
  favourite.goal_age = Millis{4000};
  CHECK_FALSE(decide(group));
  favourite.goal_age = Millis{5000};
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 313);
  CHECK(goal_in(*decision, 4) == NodeState::wait_primary);
  CHECK(goal_in(*decision, 3) == NodeState::report_lsn);
}

TEST_CASE("the order to fetch takes nobody's vote back") {
  GroupSnapshot group = election();
  group.nodes[1].lsn = Lsn{2000};
  group.nodes[2].candidate_priority = 90;
  apply(group, *decide(group));
  REQUIRE(group.nodes[2].goal == NodeState::fast_forward);
  CHECK(fsm::has_voted(group, group.nodes[2]));
  crash(group.nodes[2]);
  group.nodes[2].report_age = Millis{5000};
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 3) == NodeState::report_lsn);
}

TEST_CASE("who was chosen and is lost before it says that it has come is replaced, when the others are enough") {
  GroupSnapshot group = chosen_and_not_come();
  NodeView& chosen = group.nodes[1];
  group.names.back().names = SyncNames{1, {NodeId{2}, NodeId{3}}};
  group.names.back().heir = NodeId{2};
  group.names.push_back(NamesInForce{SyncNames{1, {NodeId{3}}}, NodeId{2}});
  group.nodes[2].goal = group.nodes[2].reported = NodeState::join_secondary;
  group.names.front().names.members = {NodeId{3}};
  SUBCASE("its keeper is silent, and its PostgreSQL answers") {
    chosen.report_age = chosen.session_closed_for = Millis{9000};
    chosen.session_open = false;
    chosen.goal_age = Millis{9500};
    CHECK_FALSE(decide(group));
    chosen.goal_age = Millis{10000};
    REQUIRE(decide(group));
    CHECK(decide(group)->rule == 301);
  }
  SUBCASE("its PostgreSQL has stopped") {
    chosen.pg_running = chosen.pg_responding = false;
    chosen.goal_age = Millis{1000};
    CHECK_FALSE(decide(group));
    chosen.goal_age = Millis{2000};
    REQUIRE(decide(group));
    CHECK(decide(group)->rule == 301);
  }
  SUBCASE("it may have acknowledged alone: only by choice") {
    group.names.back().names = SyncNames{};
    chosen.report_age = Millis{20000};
    chosen.session_open = false;
    chosen.goal_age = Millis{21000};
    const auto waits = decide(group);
    CHECK((!waits || waits->rule != 301));
    const auto why = fsm::explain(group);
    CHECK(std::any_of(why.begin(), why.end(), [](const fsm::Explanation& of) { return of.rule == 301; }));
    group.request = Request{7, RequestKind::failover, {}, true, false, Millis{0}};
    REQUIRE(decide(group));
    CHECK(decide(group)->rule == 301);
  }
}

TEST_CASE("a promotion that takes long is not stopped when nobody else could take over") {
  GroupSnapshot group = chosen_and_not_come();
  NodeView& chosen = group.nodes[1];
  chosen.goal_age = Millis{61000};
  group.names = {NamesInForce{SyncNames{}, NodeId{2}}};
  CHECK_FALSE(decide(group));
  chosen.goal_age = Millis{600000};
  CHECK(decide(group)->rule == 307);
  chosen.goal_age = Millis{61000};
  group.names = {NamesInForce{SyncNames{1, {NodeId{3}}}, NodeId{2}}};
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 307);
}

TEST_CASE("who could not stay is not chosen again before its equals") {
  GroupSnapshot group = election();
  CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
  group.names.push_back(NamesInForce{SyncNames{1, {NodeId{2}, NodeId{3}}}, NodeId{2}});
  CHECK(goal_in(*decide(group), 3) == NodeState::wait_primary);
  group.nodes[1].lsn = Lsn{2000};
  CHECK(goal_in(*decide(group), 2) == NodeState::wait_primary);
}

TEST_CASE("a standby that counts for no commit does not keep a primary alive that nobody else hears") {
  GroupSnapshot group = three();
  group.names.back().names.members = {NodeId{2}};
  group.nodes[2].replication_quorum = false;
  vanish(group.nodes[0]);
  group.nodes[1].upstream = UpstreamSight::silent;
  group.nodes[2].upstream = UpstreamSight::ok;
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 301);
  group.nodes[1].upstream = UpstreamSight::ok;
  CHECK_FALSE(decide(group));
  group.nodes[1].upstream = UpstreamSight::silent;
  group.names.back().names = SyncNames{};  // it acknowledges alone
  CHECK_FALSE(fsm::dead(group, group.nodes[0]));
}

TEST_CASE("a primary that somebody sees is not replaced by one that could not write either") {
  GroupSnapshot group = three();
  group.number_sync_standbys = 2;
  group.names.back().names = SyncNames{2, {NodeId{2}, NodeId{3}}};
  vanish(group.nodes[0]);
  group.nodes[1].upstream = UpstreamSight::ok;
  group.nodes[2].upstream = UpstreamSight::unknown;
  SUBCASE("a standby is late") {
    group.nodes[2].report_age = Millis{4000};
    CHECK_FALSE(fsm::dead(group, group.nodes[0]));
  }
  SUBCASE("enough are left for another one, and not for this one") {
    group.nodes.push_back(node(4, NodeState::secondary));
    group.names.back().names.members.push_back(NodeId{4});
    CHECK(fsm::dead(group, group.nodes[0]));
    group.nodes[3].report_age = Millis{4000};
    CHECK_FALSE(fsm::dead(group, group.nodes[0]));
  }
  SUBCASE("nobody sees it") {
    group.nodes[1].upstream = UpstreamSight::silent;
    CHECK(fsm::dead(group, group.nodes[0]));
  }
}

TEST_CASE("a hand-over after which commits wait says so") {
  GroupSnapshot group = three();
  group.number_sync_standbys = 1;
  const auto warns = [&](RequestKind kind, std::optional<NodeId> node) {
    group.request = Request{1, kind, node, false, false, Millis{0}};
    const auto decision = decide(group);
    return decision && decision->description.find("too few others are left: commits wait") != std::string::npos;
  };
  CHECK_FALSE(warns(RequestKind::failover, std::nullopt));
  group.nodes[2].goal = group.nodes[2].reported = NodeState::catchingup;
  CHECK_FALSE(warns(RequestKind::failover, std::nullopt));
  CHECK(warns(RequestKind::drop_node, NodeId{1}));
  group.nodes[0].replication_quorum = false;
  CHECK(warns(RequestKind::failover, std::nullopt));
}

TEST_CASE("when only those who leave hold data, it is said what an operator can do") {
  GroupSnapshot group = pair_of();
  group.nodes[0].goal = group.nodes[0].reported = NodeState::dropped;
  group.nodes[1].reported = NodeState::wait_standby;
  group.nodes[1].goal = NodeState::catchingup;
  group.names.back().by = NodeId{1};
  const auto why = fsm::explain(group);
  CHECK(std::any_of(why.begin(), why.end(), [](const fsm::Explanation& of) {
    return of.waiting_for == "nobody but n1 holds any data, and leaves the formation" &&
           of.command.find("drop node --force") != std::string::npos;
  }));
}

TEST_CASE("a former primary that leaves is on record until its successor's names are in force") {
  GroupSnapshot group = three();
  NodeView& former = group.nodes[0];
  former.goal = former.reported = NodeState::dropped;
  former.pg_running = former.pg_responding = former.streaming = false;
  group.nodes[1].goal = group.nodes[1].reported = NodeState::wait_primary;
  group.names.front().heir = NodeId{2};
  group.names.push_back(NamesInForce{SyncNames{1, {NodeId{3}}}, NodeId{2}});
  group.names_version = 2;
  CHECK_FALSE(decide(group));
  crash(group.nodes[1]);
  REQUIRE(decide(group));  // what the former primary has told of its end is enough
  CHECK(decide(group)->rule == 301);
}

TEST_CASE("a node in maintenance that nobody has heard stays in maintenance when the memory is lost") {
  GroupSnapshot group = three();
  group.learning = true;
  group.nodes[2].goal = NodeState::maintenance;
  group.peers_version = 3;
  for (const std::size_t heard : {0u, 1u}) {
    Account account;
    account.reported = account.goal = heard == 0 ? NodeState::primary : NodeState::secondary;
    account.term = Term{1};
    account.seq = 40;
    account.timeline = account.promised_timeline = Timeline{1};
    account.names = group.names.back().names;
    account.names_version = 1;
    account.names_confirmed = true;
    for (const std::int64_t id : {1, 2, 3}) account.peers.push_back(Peer{NodeId{id}, "n", "host", 5432, false});
    account.peers_version = 3;
    group.nodes[heard].account = account;
  }
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 1) == NodeState::primary);
  CHECK(goal_in(*decision, 3) == NodeState::maintenance);
}

TEST_CASE("who comes back first after a silence of the monitor's own makes nobody else lost") {
  fsm::Liveness liveness;
  GroupSnapshot group = three();
  const auto look = [&](std::int64_t primary, std::int64_t standbys, Millis now) {
    liveness.look({{NodeId{1}, primary, true}, {NodeId{2}, standbys, standbys == primary}, {NodeId{3}, standbys, true}},
                  now);
    liveness.fill_in(group, now, [&](NodeId) { return fsm::ProbeView{ProbeResult::good, now, now}; });
  };
  for (std::int64_t i = 1; i <= 20; ++i) look(i, i, Millis{i * 1000});
  SUBCASE("its network was away") {
    look(21, 20, Millis{26000});
    CHECK_FALSE(decide(group));
    look(22, 20, Millis{27000});
    CHECK_FALSE(decide(group));
    for (std::int64_t i = 23; i <= 25; ++i) look(i, 20, Millis{i * 1000 + 5000});
    REQUIRE(decide(group));  // now it has been heard alone for long enough
    CHECK(decide(group)->rule == 423);
  }
  SUBCASE("its database was away") {
    liveness.excuse_all(Millis{26000});
    look(21, 20, Millis{26000});
    CHECK_FALSE(decide(group));
    CHECK(fsm::fresh(group, group.nodes[1]));
  }
}

TEST_CASE("a standby is lost beside a primary that is always heard late") {
  fsm::Liveness liveness;
  GroupSnapshot group = three();
  std::int64_t heard = 0;
  std::int64_t last_of_standby = 0;
  const auto look = [&](Millis now, bool standby) {
    ++heard;
    if (standby) last_of_standby = heard;
    liveness.look({{NodeId{1}, heard, true}, {NodeId{2}, last_of_standby, true}, {NodeId{3}, heard, true}}, now);
    liveness.fill_in(group, now, [&](NodeId) { return fsm::ProbeView{ProbeResult::good, now, now}; });
    return decide(group).has_value();
  };
  // Each report takes longer than unhealthy_after; that is known of them by now.
  std::int64_t at = 0;
  for (int i = 0; i < 20; ++i) look(Millis{at += 3500}, true);
  // A silence of the monitor's own, as long as what is usual here: who comes back first makes nobody lost.
  CHECK_FALSE(look(Millis{at += 8000}, false));
  CHECK_FALSE(look(Millis{at += 500}, true));
  for (int i = 0; i < 20; ++i) CHECK_FALSE(look(Millis{at += 3500}, true));
  int needed = 0;
  while (needed < 20 && !look(Millis{at += 3500}, false)) ++needed;
  CHECK(needed >= 2);  // no sooner than its own reports might come late
  REQUIRE(needed < 20);
  CHECK(decide(group)->rule == 423);
}

TEST_CASE("tighter timings count for a node when it has heard of them") {
  fsm::Liveness liveness;
  GroupSnapshot group = pair_of();
  group.timing.unhealthy_after = group.timing.standby_lost_after = Millis{10000};
  std::int64_t count = 0;
  const auto look = [&](Millis now, bool standby) {
    ++count;
    liveness.look({{NodeId{1}, count, true}, {NodeId{2}, standby ? count : count - 1, true}}, now);
    liveness.fill_in(group, now, [&](NodeId) { return fsm::ProbeView{ProbeResult::good, now, now}; });
  };
  for (std::int64_t at = 0; at <= 20000; at += 2000) look(Millis{at}, true);
  group.timing.unhealthy_after = group.timing.standby_lost_after = Millis{1200};
  for (std::int64_t at = 20300; at < 22000; at += 300) {
    liveness.look({{NodeId{1}, ++count, true}, {NodeId{2}, 11, true}}, Millis{at});
    liveness.fill_in(group, Millis{at}, [&](NodeId) {
      return fsm::ProbeView{ProbeResult::good, Millis{at}, Millis{at}};
    });
    CHECK_FALSE(decide(group));
  }
}

TEST_CASE("who has gone on to copy since it told a monitor without memory of itself goes on") {
  for (const NodeState reached : {NodeState::catchingup, NodeState::secondary}) {
    GroupSnapshot group = three();
    group.nodes[2].goal = NodeState::wait_standby;
    group.nodes[2].goal_seq = 2;
    group.nodes[2].reported = reached;
    const auto decision = decide(group);
    REQUIRE(decision);
    CHECK(goal_in(*decision, 3) == NodeState::catchingup);
  }
}
