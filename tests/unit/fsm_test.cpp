// Both state machines: every rule's condition by example, and the walk over all that two and three nodes can reach.
#include <doctest/doctest.h>

#include <deque>
#include <map>
#include <set>

#include "common/model/pace.hpp"
#include "keeper/fsm/fence.hpp"
#include "keeper/fsm/plan.hpp"
#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/predicates.hpp"
#include "tests/unit/groups.hpp"

using namespace pgvigil;
using fsm::decide;

using namespace pgvigil::testing;

TEST_CASE(
    "two answers that do not come, and the pause before, fit into the time after which a silent node is given up") {
  struct Preset {
    Millis heartbeat, unhealthy_after;
  };
  for (const Preset& preset :
       {Preset{Millis{300}, Millis{1200}}, Preset{Millis{1000}, Millis{3000}}, Preset{Millis{2000}, Millis{10000}}}) {
    const Pace pace = pace_of(preset.heartbeat);
    CHECK(pace.period + 2 * pace.patience <= preset.unhealthy_after);
  }
  CHECK(pace_of(Millis{100}).patience >= Millis{200});
  CHECK(pace_of(Millis{1000}) == Pace{});
}

TEST_CASE("a healthy pair is left alone") {
  CHECK_FALSE(decide(pair_of()).has_value());
  CHECK_FALSE(decide(three()).has_value());
}

TEST_CASE("a crashed primary: election, promotion, announced asynchronous") {
  GroupSnapshot group = pair_of();
  crash(group.nodes[0]);
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 301);
  CHECK(decision->term == Term{2});
  CHECK(goal_in(*decision, 1) == NodeState::demote_timeout);
  CHECK(goal_in(*decision, 2) == NodeState::report_lsn);
  apply(group, *decision);
  CHECK_FALSE(decide(group));  // the vote is awaited
  converge(group, 1);
  decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 311);
  CHECK(goal_in(*decision, 2) == NodeState::wait_primary);
  apply(group, *decision);
  CHECK(group.names.size() == 2);  // what the old primary had in force is not forgotten before the new one confirms
}

TEST_CASE("no failover on a single silent hint") {
  GroupSnapshot group = pair_of();
  SUBCASE("the keeper's session is closed, PostgreSQL answers") {
    group.nodes[0].session_open = false;
    group.nodes[0].report_age = group.nodes[0].session_closed_for = Millis{60000};
  }
  SUBCASE("the probe is silent, the keeper reports") {
    group.nodes[0].probe = ProbeResult::silent;
    group.nodes[0].probe_not_good_for = Millis{60000};
  }
  SUBCASE("a refusal that is older than the end of the session") {
    group.nodes[0].session_open = false;
    group.nodes[0].probe = ProbeResult::refused;
    group.nodes[0].probe_age = Millis{100};
    group.nodes[0].session_closed_for = Millis{50};
  }
  SUBCASE("silent to the monitor, but its standby gets answers") {
    vanish(group.nodes[0]);
    group.nodes[1].upstream = UpstreamSight::ok;
  }
  SUBCASE("the monitor has just been started") {
    for (NodeView& view : group.nodes) {
      view.ever_reported = false;
      view.session_open = false;
      view.probe = ProbeResult::unknown;
    }
  }
  CHECK_FALSE(decide(group));
}

TEST_CASE("a vanished primary is replaced after its time") {
  GroupSnapshot group = pair_of();
  vanish(group.nodes[0]);
  group.nodes[1].upstream = UpstreamSight::silent;
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 301);
}

TEST_CASE("a former primary that was to follow one that is lost counts among those who can vote") {
  GroupSnapshot group = three();
  group.names = {NamesInForce{SyncNames{1, {NodeId{2}, NodeId{3}}}, NodeId{1}}};
  crash(group.nodes[0]);
  NodeView& former = group.nodes[2];
  former.goal = NodeState::catchingup;
  former.pg_running = former.pg_responding = false;
  SUBCASE("it took writes") {
    former.reported = NodeState::primary;
  }
  SUBCASE("it may have been promoted, and has not come to say so") {
    former.reported = NodeState::prepare_promotion;
  }
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 301);
  apply(group, *decision);
  decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 319);
  CHECK(goal_in(*decision, 3) == NodeState::demote_timeout);
}

TEST_CASE("nobody is promoted over an asynchronous primary unless an operator says so") {
  GroupSnapshot group = pair_of(0);
  group.nodes[0].goal = group.nodes[0].reported = NodeState::wait_primary;
  group.nodes[1].goal = group.nodes[1].reported = NodeState::catchingup;
  crash(group.nodes[0]);
  group.nodes[0].report_age = Millis{1000};
  CHECK_FALSE(decide(group));
  group.request = Request{7, RequestKind::failover, {}, true, false, Millis{0}};
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 301);
  apply(group, *decision);
  converge(group, 1);
  decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 315);
  CHECK(decision->request == fsm::RequestOutcome::accepted);
  apply(group, *decision);
  converge(group, 1);
  CHECK_FALSE(decide(group));  // the lease may still be valid
  SUBCASE("it had stopped to hand over, was given the role back, and has only heard of the new term") {
    group.nodes[0].report_age = Millis{0};
    group.nodes[0].reported = NodeState::draining;
    group.nodes[0].reported_term = group.term;
    CHECK_FALSE(decide(group));
    converge(group, 0);
    decision = decide(group);
    REQUIRE(decision);
    CHECK(decision->rule == 317);
    return;
  }
  group.nodes[0].report_age = Millis{11999};
  CHECK_FALSE(decide(group));
  group.nodes[0].report_age = Millis{12000};
  decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 317);
  CHECK(goal_in(*decision, 2) == NodeState::wait_primary);
}

TEST_CASE("a change of names under way must be satisfied as well as the old list") {
  GroupSnapshot group = pair_of();
  group.names.push_back(NamesInForce{SyncNames{}, NodeId{1}});  // told to go asynchronous, not confirmed
  group.names_version = 2;
  crash(group.nodes[0]);
  CHECK_FALSE(decide(group));
}

TEST_CASE("three nodes, one required: two of two standbys must vote; after one is taken out, one is enough") {
  GroupSnapshot group = three();
  crash(group.nodes[0]);
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 3) == NodeState::report_lsn);
  apply(group, *decision);
  converge(group, 1);
  group.nodes[2].lsn = Lsn{2000};
  CHECK_FALSE(decide(group));  // k - n + 1 = 2
  converge(group, 2);
  decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 3) == NodeState::wait_primary);  // the most advanced

  GroupSnapshot later = three();
  crash(later.nodes[2]);
  decision = decide(later);
  REQUIRE(decision);
  CHECK(decision->rule == 423);
  apply(later, *decision);
  decision = decide(later);
  REQUIRE(decision);
  CHECK(decision->names_goal->names.members == std::vector{NodeId{2}});
  apply(later, *decision);
  crash(later.nodes[0]);
  CHECK_FALSE(decide(later));  // not confirmed: the dead standby could have acknowledged alone
  later.nodes[0] = node(1, NodeState::primary);
  later.nodes[0].goal = NodeState::apply_settings;
  later.nodes[0].goal_seq = 2;
  later.nodes[0].names_version = later.names_version;
  CHECK_FALSE(decide(later));  // the keeper has not said that it does
  converge(later, 0);
  decision = decide(later);
  REQUIRE(decision);
  CHECK(decision->confirm_names);
  apply(later, *decision);
  decision = decide(later);
  REQUIRE(decision);
  CHECK(decision->rule == 505);
  apply(later, *decision);
  converge(later, 0);
  crash(later.nodes[0]);
  decision = decide(later);
  REQUIRE(decision);
  CHECK(decision->rule == 301);
  apply(later, *decision);
  converge(later, 1);
  CHECK(decide(later)->rule == 311);
}

TEST_CASE("a vote of an older term does not count") {
  GroupSnapshot group = pair_of();
  crash(group.nodes[0]);
  apply(group, *decide(group));
  converge(group, 1);
  group.nodes[1].reported_term = Term{1};
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->rule == 321);
}

TEST_CASE("refused requests say why") {
  GroupSnapshot group = pair_of();
  group.request = Request{1, RequestKind::promotion, NodeId{2}, false, false, Millis{0}};
  group.nodes[1].streaming = false;
  const auto decision = decide(group);
  REQUIRE(decision);
  CHECK(decision->request == fsm::RequestOutcome::refused);
  CHECK(decision->request_message.find("n2") != std::string::npos);
}

TEST_CASE("loss of the secondary: asynchronous with 0, kept with 1") {
  GroupSnapshot group = pair_of();
  crash(group.nodes[1]);
  auto decision = decide(group);
  REQUIRE(decision);
  CHECK(goal_in(*decision, 2) == NodeState::catchingup);
  apply(group, *decision);
  SUBCASE("number_sync_standbys = 0") {
    decision = decide(group);
    REQUIRE(decision);
    CHECK(decision->rule == 503);
    CHECK(goal_in(*decision, 1) == NodeState::wait_primary);
    CHECK(decision->names_goal->names.asynchronous());
  }
  SUBCASE("number_sync_standbys = 1") {
    group.number_sync_standbys = 1;
    CHECK_FALSE(decide(group));
  }
}

TEST_CASE("a standby that does not stream is not lost while its primary is not heard, for that may be why") {
  GroupSnapshot group = three();
  for (NodeView& view : group.nodes) view.patience = Millis{9000};  // the line was bad before
  for (const std::size_t standby : {1u, 2u}) {
    group.nodes[standby].streaming = false;
    group.nodes[standby].not_streaming_for = Millis{4000};
  }
  group.nodes[0].report_age = Millis{5000};
  CHECK_FALSE(decide(group));
  group.nodes[0].report_age = Millis{500};
  SUBCASE("its keeper's session is closed") {
    group.nodes[0].session_open = false;
    CHECK_FALSE(decide(group));
  }
  SUBCASE("it is heard again") {
    const auto decision = decide(group);
    REQUIRE(decision);
    CHECK(decision->rule == 423);
  }
}

TEST_CASE(
    "a silent standby is lost when it was silent already while its primary was heard; else the monitor may be deaf") {
  GroupSnapshot group = three();
  group.nodes[1].report_age = group.nodes[2].report_age = Millis{3400};
  group.nodes[0].report_age = Millis{500};
  CHECK_FALSE(decide(group));
  group.nodes[1].streaming = group.nodes[2].streaming = false;  // nobody knows: it is what it last said
  group.nodes[1].not_streaming_for = group.nodes[2].not_streaming_for = Millis{3400};
  CHECK_FALSE(decide(group));
  group.nodes[0].report_age = Millis{400};
  REQUIRE(decide(group));
  CHECK(decide(group)->rule == 423);
  for (NodeView& view : group.nodes) {
    view.patience = Millis{4000};  // heartbeats of 1.6 s
    view.streaming = true;
    view.not_streaming_for = Millis{0};
  }
  group.nodes[1].report_age = Millis{4000};
  CHECK_FALSE(decide(group));
}

TEST_CASE("quorum arithmetic") {
  const auto names = [](int required, int members) {
    SyncNames result{required, {}};
    for (int i = 1; i <= members; ++i) result.members.push_back(NodeId{i});
    return result;
  };
  CHECK_FALSE(fence_quorum(names(0, 0)));
  for (int k = 1; k <= 6; ++k) {
    for (int n = 1; n <= k; ++n) CHECK(*fence_quorum(names(n, k)) == k - n + 1);
  }
  CHECK(fenced(names(1, 2), {NodeId{1}, NodeId{2}}));
  CHECK_FALSE(fenced(names(1, 2), {NodeId{1}, NodeId{9}}));
  CHECK(fenced(names(2, 3), {NodeId{1}, NodeId{3}}));
  CHECK(to_guc(names(1, 2)) == "ANY 1 (pgvigil_standby_1, pgvigil_standby_2)");
  CHECK(to_guc(names(0, 0)).empty());
}

TEST_CASE("the lease") {
  keeper::Contact contact;
  contact.state = NodeState::wait_primary;
  contact.asynchronous = true;
  contact.monitor_age = std::chrono::seconds{11};
  CHECK(keeper::must_fence(contact));
  contact.monitor_age = std::chrono::seconds{9};
  CHECK_FALSE(keeper::must_fence(contact));
  contact.state = NodeState::single;
  contact.monitor_age = std::chrono::hours{1};
  CHECK_FALSE(keeper::must_fence(contact));
  contact.state = NodeState::primary;
  contact.asynchronous = false;
  CHECK_FALSE(keeper::must_fence(contact));  // its standbys are there
  contact.standby_age = std::chrono::seconds{11};
  CHECK(keeper::must_fence(contact));
}

TEST_CASE("a fence is carried out within the margin of whoever waits for the end of the lease") {
  for (std::int64_t ms = 2000; ms <= 600000; ms += 1000) {
    const std::chrono::milliseconds lease{ms};
    const keeper::FencePace pace = keeper::fence_pace(lease);
    CAPTURE(ms);
    CHECK(pace.look + pace.grace <= lease / 8);
    CHECK(pace.look >= std::chrono::milliseconds{50});
    CHECK(pace.grace >= std::chrono::milliseconds{200});
  }
}

namespace {

// What may happen to a group, abstracted: orders are carried out, nodes crash and return, time limits pass, operators
// ask.
struct Walk {
  std::set<std::string> seen;
  std::set<std::pair<NodeState, NodeState>> pairs;  // (reported, goal)
  std::deque<GroupSnapshot> todo;

  static std::string key(const GroupSnapshot& group) {
    std::string text = std::to_string(group.number_sync_standbys) +
                       (group.request ? "r" + std::string(to_string(group.request->kind)) : "");
    for (const NamesInForce& entry : group.names)
      text += "|" + to_guc(entry.names) + "by" + std::to_string(entry.by.value);
    for (const NodeView& view : group.nodes) {
      text += "/" + view.name + std::string(to_string(view.reported)) + ">" + std::string(to_string(view.goal)) +
              (view.converged() ? "=" : "~") + (view.pg_running ? "u" : "d") + (view.session_open ? "o" : "c") +
              (view.streaming ? "s" : "-") + (view.reported_term == group.term ? "t" : "-") +
              (view.names_version == group.names_version ? "v" : "-") +
              std::to_string(view.timeline.value == group.nodes[0].timeline.value);
    }
    return text;
  }

  void push(GroupSnapshot group) {
    for (int i = 0; i < 50; ++i) {
      const auto decision = decide(group);
      for (const NodeView& view : group.nodes) pairs.emplace(view.reported, view.goal);
      if (!decision) break;
      REQUIRE(i < 49);  // decisions come to rest
      apply(group, *decision);
      int writers = 0;
      for (const NodeView& view : group.nodes) {
        writers += takes_writes(view.goal) ? 1 : 0;
        pairs.emplace(view.reported, view.goal);
      }
      REQUIRE(writers <= 1);
    }
    if (seen.insert(key(group)).second) todo.push_back(std::move(group));
  }

  static void carry_out(GroupSnapshot& group, std::size_t i) {
    converge(group, i);
    NodeView& view = group.nodes[i];
    view.pg_running = view.pg_responding = takes_writes(view.goal) || runs_as_standby(view.goal);
    view.streaming = view.goal == NodeState::catchingup || view.goal == NodeState::secondary ||
                     view.goal == NodeState::prepare_promotion || view.goal == NodeState::join_secondary ||
                     view.goal == NodeState::wait_maintenance || view.goal == NodeState::fast_forward;
    view.names_version = takes_writes(view.goal) ? group.names_version : 0;
    view.not_streaming_for = Millis{0};
    view.timeline = Timeline{1};
  }

  static void up(NodeView& view) {
    view.session_open = true;
    view.session_closed_for = Millis{0};
    view.probe = ProbeResult::good;
    view.probe_not_good_for = view.report_age = Millis{0};
  }

  void run(std::size_t limit) {
    while (!todo.empty() && seen.size() < limit) {
      const GroupSnapshot group = todo.front();
      todo.pop_front();
      for (std::size_t i = 0; i < group.nodes.size(); ++i) {
        if (group.nodes[i].session_open) {
          GroupSnapshot next = group;
          carry_out(next, i);
          push(next);
          next = group;
          crash(next.nodes[i]);
          next.nodes[i].pg_running = next.nodes[i].pg_responding = next.nodes[i].streaming = false;
          next.nodes[i].report_age = Millis{20000};
          push(next);
        } else {
          GroupSnapshot next = group;
          up(next.nodes[i]);
          push(next);
        }
        for (const auto kind : {RequestKind::failover, RequestKind::promotion, RequestKind::drop_node,
                                RequestKind::start_maintenance, RequestKind::stop_maintenance}) {
          if (group.request) continue;
          const bool whole_group = kind == RequestKind::failover;
          GroupSnapshot next = group;
          next.request = Request{1,           kind, whole_group ? std::nullopt : std::optional(group.nodes[i].id),
                                 whole_group, true, Millis{0}};
          push(next);
        }
        if (!group.request && takes_writes(group.nodes[i].goal)) {
          GroupSnapshot next = group;
          next.request = Request{1, RequestKind::failover, group.nodes[i].id, false, false, Millis{0}};
          push(next);
        }
      }
    }
  }
};

}  // namespace

TEST_CASE("every pair of reported and goal that the monitor can produce has a plan at the keeper") {
  Walk walk;
  for (const int nodes : {1, 2, 3}) {
    GroupSnapshot group;
    group.formation = "default";
    group.term = Term{1};
    group.promised_timeline = Timeline{1};
    group.nodes = {node(1, NodeState::single)};
    group.nodes[0].reported = NodeState::init;
    group.nodes[0].reported_seq = 0;
    for (int i = 2; i <= nodes; ++i) {
      NodeView view = node(i, NodeState::wait_standby);
      view.reported = NodeState::init;
      view.reported_seq = 0;
      view.pg_running = view.streaming = false;
      group.nodes.push_back(view);
    }
    for (const int required : {0, 1}) {
      group.number_sync_standbys = required;
      walk.push(group);
    }
  }
  walk.run(60000);
  CHECK(walk.seen.size() > 1000);
  CHECK(walk.pairs.size() > 50);
  std::set<NodeState> goals;
  for (const auto& pair : walk.pairs) {
    const NodeState reported = pair.first;
    const NodeState goal = pair.second;
    goals.insert(goal);
    INFO(to_string(reported), " -> ", to_string(goal));
    CHECK(keeper::plan(reported, goal).has_value());
  }
  for (const NodeState state :
       {NodeState::single, NodeState::wait_primary, NodeState::primary, NodeState::draining, NodeState::demote_timeout,
        NodeState::demoted, NodeState::wait_standby, NodeState::catchingup, NodeState::secondary,
        NodeState::prepare_promotion, NodeState::stop_replication, NodeState::report_lsn, NodeState::dropped,
        NodeState::join_secondary, NodeState::apply_settings, NodeState::prepare_maintenance,
        NodeState::wait_maintenance, NodeState::maintenance}) {
    INFO(to_string(state));
    CHECK(goals.contains(state));
  }
}

TEST_CASE("rules have unique, growing numbers and texts") {
  int last = 0;
  for (const auto& rule : fsm::rules()) {
    CHECK(rule.number > last);
    CHECK_FALSE(rule.name.empty());
    CHECK_FALSE(rule.condition.empty());
    CHECK_FALSE(rule.effect.empty());
    last = rule.number;
  }
}
