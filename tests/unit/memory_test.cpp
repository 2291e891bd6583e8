// A monitor without memory: what it concludes from its nodes' accounts (monitor/fsm/README.md), and how these travel.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "common/monitor_api/json.hpp"
#include "keeper/fsm/core.hpp"
#include "keeper/service/state_file.hpp"
#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/predicates.hpp"

using namespace pgvigil;
using fsm::decide;

namespace {

Account told(NodeState state, std::int64_t term, std::uint32_t timeline = 1) {
  Account account;
  account.reported = account.goal = state;
  account.term = Term{term};
  account.seq = 40;
  account.timeline = account.promised_timeline = Timeline{timeline};
  for (const std::int64_t id : {1, 2, 3}) account.peers.push_back(Peer{NodeId{id}, "n", "host", 5432, false});
  account.peers_version = 3;
  return account;
}

Account primary_of(SyncNames names, std::int64_t term, std::uint32_t timeline = 1) {
  Account account = told(NodeState::primary, term, timeline);
  account.names = std::move(names);
  account.names_version = 9;
  account.names_confirmed = true;
  return account;
}

// Three nodes on record of an old backup: n1 is the primary, of term 2.
GroupSnapshot without_memory() {
  GroupSnapshot group;
  group.formation = "default";
  group.learning = true;
  group.term = Term{2};
  group.promised_timeline = Timeline{1};
  group.peers_version = 3;
  for (const std::int64_t id : {1, 2, 3}) {
    NodeView view;
    view.id = NodeId{id};
    view.name = "n" + std::to_string(id);
    view.goal = id == 1 ? NodeState::primary : NodeState::secondary;
    view.goal_seq = 5;
    group.nodes.push_back(view);
  }
  return group;
}

NodeState goal_in(const fsm::Decision& decision, std::int64_t id) {
  for (const auto& change : decision.goals) {
    if (change.node.value == id) return change.goal;
  }
  return NodeState::init;
}

const SyncNames any_1_of_2_3{1, {NodeId{2}, NodeId{3}}};

Goal order_to_write() {
  Goal goal;
  goal.state = NodeState::wait_primary;
  goal.term = Term{2};
  goal.seq = 5;
  return goal;
}

}  // namespace

TEST_CASE("learning: by whom nothing is known yet, nothing is decided") {
  GroupSnapshot group = without_memory();
  CHECK(!decide(group));
  group.nodes[1].account = told(NodeState::secondary, 2);
  group.nodes[2].account = told(NodeState::secondary, 2);
  CHECK(!decide(group));  // n1 could have been replaced by an order that these two have not heard of
}

TEST_CASE("learning: a primary and enough of its standbys") {
  GroupSnapshot group = without_memory();
  group.nodes[0].account = primary_of(any_1_of_2_3, 7);
  CHECK(!decide(group));
  group.nodes[2].account = told(NodeState::secondary, 7);
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 603);
  CHECK(goal_in(*decision, 1) == NodeState::primary);
  CHECK(goal_in(*decision, 2) == NodeState::catchingup);
  CHECK(goal_in(*decision, 3) == NodeState::secondary);
  CHECK(decision->term->value > 7);
  CHECK(decision->learned->seq > 40);
  CHECK(decision->learned->names_version > 9);
  CHECK(decision->learned->names == std::vector{NamesInForce{any_1_of_2_3, NodeId{1}}});
}

TEST_CASE("learning: a primary and its standbys are not enough where this record knows of a later promotion") {
  GroupSnapshot group = without_memory();
  group.term = Term{8};  // by an operator's force, without n1 and n3
  group.nodes[0].account = primary_of(any_1_of_2_3, 7);
  group.nodes[2].account = told(NodeState::secondary, 7);
  CHECK(!decide(group));
  group.nodes[1].account = told(NodeState::wait_primary, 8, 2);
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 2) == NodeState::wait_primary);
  CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);
}

TEST_CASE("learning: a newer promise of a standby takes the word from a primary") {
  GroupSnapshot group = without_memory();
  group.nodes[0].account = primary_of(any_1_of_2_3, 7);
  group.nodes[2].account = told(NodeState::report_lsn, 8);
  CHECK(!decide(group));  // n2 may have been promoted for term 8
  SUBCASE("it was not") {
    group.nodes[1].account = told(NodeState::secondary, 7);
    CHECK(goal_in(*decide(group), 1) == NodeState::primary);
  }
  SUBCASE("it was") {
    group.nodes[1].account = told(NodeState::wait_primary, 8, 2);
    const auto decision = decide(group);
    CHECK(goal_in(*decision, 2) == NodeState::wait_primary);
    CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);
    // Not confirmed: the list stands beside that of all who may hold a commit, which n1 and n3 do not any more.
    REQUIRE(decision->learned->names.size() == 2);
    CHECK(decision->learned->names[0] == NamesInForce{SyncNames{1, {NodeId{2}}}, NodeId{0}});
  }
  SUBCASE("it was ordered, and nobody knows how far it came") {
    group.nodes[1].account = told(NodeState::report_lsn, 8);
    group.nodes[1].account->promised_timeline = Timeline{2};
    const auto decision = decide(group);
    CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);
    CHECK(goal_in(*decision, 2) == NodeState::report_lsn);
    CHECK(decision->learned->names[0].names.members == std::vector{NodeId{1}, NodeId{2}, NodeId{3}});
  }
}

TEST_CASE("learning: what another monitor without memory may have said to those who are not heard has other numbers") {
  GroupSnapshot group = without_memory();
  group.nodes[0].account = primary_of(any_1_of_2_3, 2);
  group.nodes[1].account = told(NodeState::secondary, 2);
  group.clock = 1800000000000;
  const auto earlier = decide(group);
  REQUIRE(earlier);
  group.clock += 1;
  const auto later = decide(group);
  REQUIRE(later);
  CHECK(later->term == earlier->term);
  CHECK(later->learned->seq > earlier->learned->seq);
  CHECK(later->learned->names_version > earlier->learned->names_version);
  CHECK(later->learned->peers_version > earlier->learned->peers_version);
  // A clock that goes wrong takes nothing back.
  group.clock = 0;
  const auto without_clock = decide(group);
  REQUIRE(without_clock);
  CHECK(without_clock->learned->seq > 40);
}

TEST_CASE("learning: who was removed by force meanwhile may have known more") {
  GroupSnapshot group = without_memory();
  group.nodes[0].account = primary_of(SyncNames{}, 7);
  group.nodes[2].account = told(NodeState::secondary, 7);
  group.nodes.erase(group.nodes.begin() + 1);
  group.names = {NamesInForce{SyncNames{1, {NodeId{2}}}, NodeId{0}}};
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);
  // It may have been promoted by a monitor that had learned, above these by as much as this one goes on.
  CHECK(decision->term->value > 7 + 5000);
  group.names = decision->learned->names;
  CHECK(fsm::in_any_list(group, NodeId{2}));
}

TEST_CASE("learning: commands are refused, but for the choice to go on with those that were heard") {
  GroupSnapshot group = without_memory();
  Request request;
  request.id = 1;
  request.kind = RequestKind::failover;
  group.request = request;
  CHECK(decide(group)->request == fsm::RequestOutcome::refused);
  group.request->allow_data_loss = true;
  CHECK(decide(group)->request == fsm::RequestOutcome::refused);  // nobody has been heard
  group.nodes[0].account = primary_of(SyncNames{}, 2);
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->request == fsm::RequestOutcome::pending);
  CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);  // an unheard primary's lease may still be valid
  CHECK(decision->promised_timeline->value > 2);
}

TEST_CASE("learning: a group that has not begun is founded by its first node") {
  GroupSnapshot group = without_memory();
  for (NodeView& view : group.nodes) view.account = Account{};
  CHECK(!decide(group));  // who was to begin is not on record: nobody makes a cluster beside one that may be elsewhere
  group.nodes[0].goal = NodeState::single;
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 1) == NodeState::single);
  CHECK(goal_in(*decision, 2) == NodeState::wait_standby);
}

TEST_CASE("an account as JSON, there and back") {
  Account account = primary_of(any_1_of_2_3, 7, 4);
  account.copy_unfinished = true;
  account.number_sync_standbys = 2;
  account.lease_seconds = 30;
  account.peers = {Peer{NodeId{2}, "n2", "b.example", 5433, true}};
  CHECK(monitor_api::parse_account(monitor_api::to_json(account)) == account);
  CHECK(monitor_api::parse_account(monitor_api::to_json(Account{})) == Account{});
  CHECK_THROWS(monitor_api::parse_account("{}"));
}

TEST_CASE("a state that could not be written stays due") {
  char name[] = "/tmp/pgvigil-unit.XXXXXX";
  const std::filesystem::path above = ::mkdtemp(name);
  const std::string directory = above / "not there yet";
  keeper::KeeperState state;
  state.term = Term{7};
  keeper::StateFile file(directory);
  CHECK(file.holds(state));  // nothing is due
  file.changed();
  CHECK(!file.holds(state));
  CHECK(!file.holds(state));  // nothing has changed since, and it is not there either
  CHECK(file.failure().find("No such file") != std::string::npos);
  std::filesystem::create_directory(directory);
  CHECK(file.holds(state));
  CHECK(file.failure().empty());
  REQUIRE(keeper::load_state(directory));
  CHECK(keeper::load_state(directory)->term == Term{7});
  std::filesystem::remove_all(above);
}

namespace {

bool held_soon(keeper::StateFile& file, const keeper::KeeperState& state) {
  for (int i = 0; i < 10'000; ++i) {
    if (file.holds(state)) return true;
    std::this_thread::sleep_for(Millis{1});
  }
  return false;
}

}  // namespace

TEST_CASE("a state on its way to the disk does not hold what has changed since") {
  char name[] = "/tmp/pgvigil-unit.XXXXXX";
  const std::filesystem::path directory = ::mkdtemp(name);
  keeper::KeeperState state;
  keeper::StateFile file(directory, Millis{0});
  for (std::int64_t term = 1; term <= 50; ++term) {
    state.term = Term{2 * term};
    file.changed();
    const bool at_once = file.holds(state);
    if (!at_once) CHECK(file.failure().find("does not answer") != std::string::npos);
    state.term = Term{2 * term + 1};
    file.changed();
    CHECK(held_soon(file, state));
    CHECK(keeper::load_state(directory)->term == state.term);
  }
  CHECK(file.failure().empty());

  // A disk that does not answer, and then refuses: a pipe where the new file is written to, which cannot be synced.
  const std::string pipe = keeper::state_path(directory).string() + ".tmp." + std::to_string(::getpid());
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  state.term = Term{200};
  file.changed();
  CHECK(!file.holds(state));
  CHECK(!file.holds(state));
  CHECK(file.failure().find("does not answer") != std::string::npos);
  CHECK(keeper::load_state(directory)->term == Term{101});
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  CHECK(held_soon(file, state));
  ::close(reader);
  CHECK(keeper::load_state(directory)->term == Term{200});
  std::filesystem::remove_all(directory);
}

TEST_CASE("an old order promotes no node that has followed a later primary") {
  keeper::KeeperState state;
  state.reported = NodeState::prepare_promotion;
  state.goal.state = NodeState::wait_primary;
  state.goal.names = any_1_of_2_3;
  state.goal.promised_timeline = Timeline{3};
  const keeper::Core core(state, true, Millis{0});
  keeper::LocalFacts seen;
  seen.in_recovery = true;
  seen.timeline = Timeline{2};
  CHECK(!core.no_promotion(seen, Millis{0}));
  seen.timeline = Timeline{3};  // somebody else's, by an order that came after this one
  CHECK(core.no_promotion(seen, Millis{0}));
  seen.in_recovery = false;  // promoted already, by this order
  CHECK(!core.no_promotion(seen, Millis{0}));
}

TEST_CASE("whose data is being overwritten is no secondary any more, whatever comes of it") {
  for (const NodeState before : {NodeState::secondary, NodeState::demoted, NodeState::primary}) {
    keeper::KeeperState state;
    state.reported = before;
    keeper::Core core(state, true, Millis{0});
    CHECK(core.copy_begins() == keeper::Core::Save::yes);
    CHECK(core.state().reported == NodeState::catchingup);
    // Nor after a restart in the middle of it.
    CHECK(keeper::parse_state(keeper::to_json(core.state())).reported == NodeState::catchingup);
  }
  for (const NodeState before : {NodeState::init, NodeState::wait_standby}) {
    keeper::KeeperState state;  // it had none
    state.reported = before;
    keeper::Core core(state, true, Millis{0});
    core.copy_begins();
    CHECK(core.state().reported == before);
  }
}

TEST_CASE("who was removed from the formation has no lease, however often it is told so") {
  keeper::KeeperState state;
  state.node = NodeId{1};
  state.reported = NodeState::wait_primary;
  keeper::Core core(state, true, Millis{0});
  Goal goal = order_to_write();
  goal.lease_seconds = 10;
  core.answered(goal, Millis{1000}, Millis{1001});
  goal.state = NodeState::dropped;
  goal.seq = 6;
  for (std::int64_t at = 2000; at <= 10000; at += 1000) {
    core.answered(goal, Millis{at}, Millis{at + 1});
    CHECK(!core.must_fence(Millis{at + 1}));
    CHECK(core.in_contact(Millis{at + 1}));
  }
  CHECK(core.last_answer() == Millis{10000});  // heard all the same: it may end when the monitor knows
  REQUIRE(core.must_fence(Millis{11001}));
  core.fenced("its lease is over", Millis{11001});
  CHECK(core.next(Millis{11002}).step == keeper::Step::stop);  // and goes on with going
}

TEST_CASE("a promotion by an order that another one has followed is no stranger's, nor after a restart") {
  keeper::KeeperState state;
  state.node = NodeId{1};
  state.reported = NodeState::report_lsn;
  state.timeline = Timeline{1};
  keeper::Core first(state, true, Millis{0});
  Goal goal = order_to_write();
  goal.promised_timeline = Timeline{2};
  first.answered(goal, Millis{1000}, Millis{1001});
  goal.seq = 105;  // of a monitor that has lost its memory, and has learned
  goal.promised_timeline = Timeline{102};
  first.answered(goal, Millis{2000}, Millis{2001});
  CHECK(first.account(false).promised_timeline == Timeline{102});
  keeper::Core core(keeper::parse_state(keeper::to_json(first.state())), true, Millis{0});
  goal.state = NodeState::demote_timeout;
  goal.seq = 106;
  core.answered(goal, Millis{3000}, Millis{3001});
  keeper::LocalFacts seen;
  seen.timeline = Timeline{2};
  core.saw(seen, Millis{3002});
  CHECK(!core.no_vote());
  seen.timeline = Timeline{3};
  core.saw(seen, Millis{3003});
  CHECK(core.no_vote());
}

TEST_CASE("a version of names that is given anew, for other names, confirms nothing") {
  keeper::KeeperState state;
  state.node = NodeId{1};
  state.reported = NodeState::wait_primary;
  keeper::Core core(state, true, Millis{0});
  Goal goal = order_to_write();
  goal.names = any_1_of_2_3;
  goal.names_version = 7;
  core.answered(goal, Millis{1000}, Millis{1001});
  core.names_confirmed(7);
  CHECK(core.report(Millis{1002}).names_version == 7);
  goal.names = SyncNames{1, {NodeId{2}}};  // the same number, of a monitor that has lost its memory
  core.answered(goal, Millis{2000}, Millis{2001});
  CHECK(core.report(Millis{2002}).names_version == 0);
}
