// What a failover consisted of: written down on both sides, put on one line.
#include "common/moments/moments.hpp"

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include "common/monitor_api/json.hpp"
#include "keeper/moments/recorder.hpp"
#include "monitor/moments/recorder.hpp"
#include "tests/unit/groups.hpp"

using namespace pgvigil;
using namespace pgvigil::testing;
using fsm::decide;
using moments::Millis;

namespace {

std::string names_of(const std::vector<moments::Moment>& list) {
  std::string text;
  for (const auto& moment : list) text += (text.empty() ? "" : " ") + moment.name;
  return text;
}

// "name@at+part" of each line.
std::string shape(const std::vector<moments::Line>& lines) {
  std::string text;
  for (const auto& line : lines) {
    text += (text.empty() ? "" : " ") + line.name + "@" + std::to_string(line.at.count()) + "+" +
            std::to_string(line.part.count());
  }
  return text;
}

Millis at(const std::vector<moments::Moment>& list, std::string_view name) {
  const moments::Moment* found = moments::find(list, name);
  REQUIRE(found != nullptr);
  return found->at;
}

moments::Told failover() {
  moments::Told told;
  told.successor_name = "b";
  told.monitor = {{"suspicion", Millis{1000}, ""},
                  {"verdict", Millis{1002}, ""},
                  {"ordered", Millis{1050}, ""},
                  {"heard", Millis{1210}, ""}};
  // 150 of the 160 ms between order and report were spent here.
  told.successor = {{"order_received", Millis{7}, ""}, {"promoting", Millis{27}, ""}, {"promoted", Millis{127}, ""},
                    {"settled", Millis{150}, ""},      {"reported", Millis{157}, ""}, {"first_write", Millis{140}, ""}};
  return told;
}

// Carries the group on by what was decided on it, as the service does.
fsm::Decision step(monitor::Recorder& recorder, GroupSnapshot& group, Millis now) {
  recorder.saw(group, now);
  const auto decision = decide(group);
  REQUIRE(decision);
  recorder.decided(group, *decision, now);
  apply(group, *decision);
  recorder.committed(now + Millis{5});
  return *decision;
}

void look(monitor::Recorder& recorder, const GroupSnapshot& group, Millis now) {
  recorder.saw(group, now);
  CHECK_FALSE(decide(group));
}

Goal goal_of(NodeState state, std::int64_t seq, std::int64_t term) {
  Goal goal;
  goal.state = state;
  goal.seq = seq;
  goal.term = Term{term};
  return goal;
}

}  // namespace

TEST_CASE("a keeper's moments stand behind the order and before the report, whatever its clock says") {
  moments::Told told = failover();
  const auto lines = moments::compose(told);
  CHECK(shape(lines) ==
        "suspicion@0+0 verdict@2+2 ordered@50+48 order_received@60+10 promoting@80+20 promoted@180+100 "
        "first_write@193+13 settled@203+10");
  CHECK(lines.back().seen_by == "b");
  CHECK(lines.front().seen_by == "monitor");
  CHECK(moments::gap(lines) == moments::Gap{Millis{193}, Millis{193}});
  CHECK(moments::kind(told.monitor) == "failover");
  SUBCASE("it may have been lost before the first sign") {
    told.monitor.insert(told.monitor.begin(), {"last_evidence", Millis{600}, ""});
    CHECK(moments::gap(moments::compose(told)) == moments::Gap{Millis{193}, Millis{593}});
  }
  SUBCASE("its clock began elsewhere") {
    for (auto& moment : told.successor) moment.at += Millis{123456};
    CHECK(shape(moments::compose(told)) == shape(lines));
  }
  SUBCASE("rounding: the report is not heard before it was sent") {
    told.monitor.back().at = Millis{1199};
    CHECK(shape(moments::compose(told)) ==
          "suspicion@0+0 verdict@2+2 ordered@50+48 order_received@50+0 promoting@70+20 promoted@170+100 "
          "first_write@183+13 settled@193+10");
  }
}

TEST_CASE("a vote has its own order and report, by the same clock") {
  moments::Told told = failover();
  told.monitor.insert(
      told.monitor.begin() + 2,
      {{"votes_asked", Millis{1010}, ""}, {"vote_heard", Millis{1040}, ""}, {"fenced", Millis{1045}, ""}});
  told.successor.insert(told.successor.begin(),
                        {{"vote_received", Millis{-34}, ""}, {"cut_off", Millis{-20}, ""}, {"voted", Millis{-10}, ""}});
  CHECK(shape(moments::compose(told))
            .starts_with("suspicion@0+0 verdict@2+2 votes_asked@10+8 vote_received@16+6 "
                         "cut_off@30+14 voted@40+10 fenced@45+5 ordered@50+5 order_received@60+10 "));
  told.monitor.clear();
  CHECK(shape(moments::compose(told)).starts_with("vote_received@0+0 cut_off@14+14 voted@24+10 order_received@41+17 "));
}

TEST_CASE("what somebody has not told is left out, and the rest stands") {
  moments::Told told = failover();
  SUBCASE("the monitor was started anew") {
    told.monitor.clear();
    const auto lines = moments::compose(told);
    CHECK(shape(lines) == "order_received@0+0 promoting@20+20 promoted@120+100 first_write@133+13 settled@143+10");
    CHECK_FALSE(moments::gap(lines));
    CHECK(moments::kind(told.monitor) == "takeover");
  }
  SUBCASE("nobody has heard the report") {
    told.monitor.pop_back();
    CHECK(shape(moments::compose(told)).starts_with("suspicion@0+0 verdict@2+2 ordered@50+48 order_received@50+0 "));
  }
  SUBCASE("nobody wrote, and the keeper told nothing") {
    told.successor.clear();
    const auto lines = moments::compose(told);
    CHECK(shape(lines) == "suspicion@0+0 verdict@2+2 ordered@50+48");
    CHECK_FALSE(moments::gap(lines));
  }
  CHECK(moments::compose(moments::Told{}).empty());
}

TEST_CASE("the gap of a switchover begins when PostgreSQL begins to stop") {
  moments::Told told = failover();
  told.former_name = "a";
  told.monitor = {{"asked", Millis{0}, ""},      {"draining", Millis{5}, ""},  {"stop_heard", Millis{90}, ""},
                  {"caught_up", Millis{95}, ""}, {"ordered", Millis{100}, ""}, {"heard", Millis{260}, ""}};
  told.former = {{"drain_received", Millis{0}, ""},
                 {"stopping", Millis{30}, ""},
                 {"stopped", Millis{70}, ""},
                 {"reported", Millis{81}, ""}};
  const auto lines = moments::compose(told);
  CHECK(
      shape(lines).starts_with("asked@0+0 draining@5+5 drain_received@9+4 stopping@39+30 stopped@79+40 "
                               "stop_heard@90+11 caught_up@95+5 ordered@100+5 order_received@110+10 "));
  CHECK(moments::gap(lines) == moments::Gap{Millis{243 - 39}, Millis{243 - 39}});
  CHECK(moments::kind(told.monitor) == "switchover");
}

TEST_CASE("what falls into the same millisecond stands in the order in which it happened") {
  moments::Told told;
  told.monitor = {{"chosen", Millis{3}, ""}, {"ordered", Millis{3}, ""},   {"elected", Millis{3}, ""},
                  {"fenced", Millis{3}, ""}, {"caught_up", Millis{3}, ""}, {"verdict", Millis{2}, ""}};
  CHECK(shape(moments::compose(told)) == "verdict@0+0 caught_up@1+1 fenced@1+0 chosen@1+0 elected@1+0 ordered@1+0");
}

TEST_CASE("every name has words, and a list survives its way") {
  const moments::Told told = failover();
  for (const auto& list : {told.monitor, told.successor}) {
    for (const auto& moment : list) {
      if (moment.name != moments::heard && moment.name != moments::reported)
        CHECK_FALSE(moments::words(moment.name).empty());
    }
  }
  // From the earliest on, which need not be the first: nobody else's clock begins there.
  std::vector<moments::Moment> list{{"verdict", Millis{950}, "rule 301"}, {"suspicion", Millis{900}, "x"}};
  const auto back = monitor_api::moments_from(monitor_api::moments_array(list));
  list[0].at = Millis{50};
  list[1].at = Millis{0};
  CHECK(back == list);
}

TEST_CASE("the monitor writes down an election from the first sign to the word of the new primary") {
  monitor::Recorder recorder;
  GroupSnapshot group = pair_of();
  group.nodes[0].probe_not_good_for = Millis{400};
  look(recorder, group, Millis{10000});
  // The session is closed first; that alone is no proof.
  group.nodes[0].session_open = false;
  group.nodes[0].session_closed_for = Millis{20};
  group.nodes[0].probe_not_good_for = Millis{500};
  look(recorder, group, Millis{10100});
  crash(group.nodes[0]);
  group.nodes[0].session_closed_for = Millis{50};
  group.nodes[0].probe_not_good_for = Millis{530};
  CHECK(step(recorder, group, Millis{10130}).rule == 301);
  recorder.saw(group, Millis{10150});
  converge(group, 1);
  CHECK(step(recorder, group, Millis{10170}).rule == 311);
  CHECK(recorder.ended().empty());
  converge(group, 1);
  recorder.saw(group, Millis{10300});
  REQUIRE(recorder.ended().size() == 1);
  const monitor::Story& story = recorder.ended().front();
  CHECK(names_of(story.moments) ==
        "last_evidence suspicion verdict votes_asked vote_heard fenced elected ordered heard");
  CHECK(at(story.moments, "last_evidence") == Millis{9600});
  CHECK(at(story.moments, "suspicion") == Millis{10080});
  CHECK(at(story.moments, "verdict") == Millis{10130});
  CHECK(at(story.moments, "votes_asked") == Millis{10135});
  CHECK(at(story.moments, "fenced") == Millis{10170});
  CHECK(at(story.moments, "ordered") == Millis{10175});
  CHECK(at(story.moments, "heard") == Millis{10300});
  CHECK(story.former_name == "n1");
  CHECK(story.successor == NodeId{2});
  CHECK(story.term == group.term);
  // Once.
  recorder.stored();
  recorder.saw(group, Millis{10400});
  CHECK(recorder.ended().empty());
}

TEST_CASE("signs from before the primary was last well, and signs that go again, are none") {
  monitor::Recorder recorder;
  GroupSnapshot group = pair_of();
  // Its keeper has gone long ago, and PostgreSQL answers the monitor.
  group.nodes[0].session_open = false;
  group.nodes[0].session_closed_for = Millis{2000};
  group.nodes[0].report_age = Millis{2000};
  // For a while the standby receives nothing.
  group.nodes[1].streaming = false;
  recorder.saw(group, Millis{20000});
  group.nodes[1].streaming = true;
  recorder.saw(group, Millis{20100});
  group.nodes[0].probe = ProbeResult::refused;
  group.nodes[0].probe_age = Millis{3};
  group.nodes[0].probe_not_good_for = Millis{700};
  group.nodes[0].session_closed_for = group.nodes[0].report_age = Millis{3000};
  CHECK(step(recorder, group, Millis{21000}).rule == 301);
  converge(group, 1);
  step(recorder, group, Millis{21050});
  converge(group, 1);
  recorder.saw(group, Millis{21200});
  REQUIRE(recorder.ended().size() == 1);
  const auto& told = recorder.ended().front().moments;
  CHECK(at(told, "last_evidence") == Millis{20300});
  CHECK(at(told, "suspicion") == Millis{20997});
  CHECK(moments::find(told, "suspicion")->detail == "it is refused to the monitor");
}

TEST_CASE("the monitor writes down a hand-over; one that is given up is none") {
  monitor::Recorder recorder;
  GroupSnapshot group = pair_of();
  group.request = Request{1, RequestKind::failover, {}, false, false, Millis{7}};
  CHECK(step(recorder, group, Millis{1000}).rule == 101);
  converge(group, 0);
  group.nodes[0].pg_running = false;
  group.nodes[0].lsn = Lsn{1001};
  SUBCASE("to the end") {
    look(recorder, group, Millis{1100});
    converge(group, 1);
    group.nodes[1].lsn = Lsn{1100};
    CHECK(step(recorder, group, Millis{1130}).rule == 303);
    converge(group, 1);
    recorder.saw(group, Millis{1300});
    REQUIRE(recorder.ended().size() == 1);
    const monitor::Story& story = recorder.ended().front();
    CHECK(names_of(story.moments) == "asked draining stop_heard caught_up ordered heard");
    CHECK(at(story.moments, "asked") == Millis{993});
    CHECK(at(story.moments, "draining") == Millis{1005});
    CHECK(at(story.moments, "stop_heard") == Millis{1100});
    CHECK(at(story.moments, "caught_up") == Millis{1130});
    CHECK(story.former_name == "n1");
    CHECK(story.term == group.term);
  }
  SUBCASE("given up, and lost later") {
    vanish(group.nodes[1]);
    CHECK(step(recorder, group, Millis{1200}).rule == 305);
    converge(group, 0);
    group.nodes[0].pg_running = true;
    recorder.saw(group, Millis{1300});
    CHECK(recorder.ended().empty());
    group.nodes[1] = node(2, NodeState::secondary);
    crash(group.nodes[0]);
    group.names = pair_of().names;
    CHECK(step(recorder, group, Millis{5000}).rule == 301);
    converge(group, 1);
    step(recorder, group, Millis{5050});
    converge(group, 1);
    recorder.saw(group, Millis{5200});
    REQUIRE(recorder.ended().size() == 1);
    CHECK_FALSE(moments::find(recorder.ended().front().moments, "asked"));
  }
}

TEST_CASE(
    "a keeper writes down a takeover, and tells it when the state has been reported and when a client has written") {
  keeper::Recorder recorder;
  using keeper::Step;
  recorder.ordered(goal_of(NodeState::report_lsn, 4, 2), NodeState::secondary, Millis{90});
  recorder.reports(NodeState::secondary, 3, Millis{92});
  recorder.done(Step::cut_off, Millis{95});
  recorder.reports(NodeState::report_lsn, 4, Millis{97});
  recorder.reports(NodeState::report_lsn, 4, Millis{99});
  const Goal goal = goal_of(NodeState::wait_primary, 5, 2);
  recorder.ordered(goal, NodeState::report_lsn, Millis{100});
  recorder.begins(Step::promote, Millis{110});
  recorder.ordered(goal, NodeState::report_lsn, Millis{115});  // a heartbeat meanwhile
  recorder.begins(Step::promote, Millis{120});                 // and a failed attempt
  CHECK_FALSE(recorder.awaits_write());
  recorder.done(Step::promote, Millis{210});
  CHECK(recorder.awaits_write());
  recorder.reports(NodeState::report_lsn, 4, Millis{215});
  recorder.settled(NodeState::wait_primary, Millis{220});
  CHECK_FALSE(recorder.telling());
  recorder.reports(NodeState::wait_primary, 5, Millis{222});
  recorder.reports(NodeState::wait_primary, 5, Millis{322});
  auto telling = recorder.telling();
  REQUIRE(telling);
  CHECK(telling->term == Term{2});
  CHECK(names_of(telling->moments) == "vote_received cut_off voted order_received promoting promoted settled reported");
  CHECK(at(telling->moments, "vote_received") == Millis{90});
  CHECK(at(telling->moments, "cut_off") == Millis{95});
  CHECK(at(telling->moments, "voted") == Millis{97});
  CHECK(at(telling->moments, "order_received") == Millis{100});
  CHECK(at(telling->moments, "promoting") == Millis{110});
  CHECK(at(telling->moments, "reported") == Millis{222});
  // While that is on its way.
  recorder.wrote(Millis{250});
  recorder.told(*telling);
  recorder.wrote(Millis{260});
  telling = recorder.telling();
  REQUIRE(telling);
  CHECK(at(telling->moments, "first_write") == Millis{250});
  recorder.told(*telling);
  CHECK_FALSE(recorder.telling());
  // What follows is no takeover.
  recorder.ordered(goal_of(NodeState::primary, 6, 2), NodeState::wait_primary, Millis{400});
  recorder.reports(NodeState::primary, 6, Millis{410});
  CHECK_FALSE(recorder.telling());
}

TEST_CASE("a takeover whose end was not seen leaves nothing to the next one") {
  monitor::Recorder recorder;
  GroupSnapshot group = three();
  crash(group.nodes[0]);
  group.nodes[0].probe_not_good_for = Millis{100};
  CHECK(step(recorder, group, Millis{1000}).rule == 301);
  converge(group, 1);
  converge(group, 2);
  CHECK(step(recorder, group, Millis{1100}).rule == 311);
  // Nobody has told the monitor how that went; the group is at work again, and its primary dies.
  group.term = Term{1};
  group.nodes = {node(1, NodeState::secondary), node(2, NodeState::primary), node(3, NodeState::secondary)};
  group.names = {NamesInForce{SyncNames{1, {NodeId{1}, NodeId{3}}}, NodeId{2}}};
  crash(group.nodes[1]);
  group.nodes[1].probe_not_good_for = Millis{200};
  CHECK(step(recorder, group, Millis{9000}).rule == 301);
  converge(group, 0);
  converge(group, 2);
  CHECK(step(recorder, group, Millis{9050}).rule == 311);
  converge(group, 0);
  recorder.saw(group, Millis{9200});
  REQUIRE(recorder.ended().size() == 1);
  CHECK(recorder.ended().front().former_name == "n2");
  CHECK(at(recorder.ended().front().moments, "last_evidence") == Millis{8800});
}

TEST_CASE("a keeper tells how it handed over under the term of the node that took over") {
  keeper::Recorder recorder;
  using keeper::Step;
  recorder.ordered(goal_of(NodeState::draining, 7, 2), NodeState::primary, Millis{100});
  recorder.done(Step::checkpoint, Millis{140});
  recorder.begins(Step::stop, Millis{141});
  recorder.done(Step::stop, Millis{180});
  recorder.reports(NodeState::draining, 7, Millis{190});
  CHECK_FALSE(recorder.telling());
  SUBCASE("taken over") {
    recorder.ordered(goal_of(NodeState::demoted, 8, 3), NodeState::draining, Millis{250});
    const auto telling = recorder.telling();
    REQUIRE(telling);
    CHECK(telling->term == Term{3});
    CHECK(names_of(telling->moments) == "drain_received stopping stopped reported");
    CHECK(at(telling->moments, "stopping") == Millis{141});
  }
  SUBCASE("given back") {
    recorder.ordered(goal_of(NodeState::wait_primary, 8, 2), NodeState::draining, Millis{250});
    CHECK_FALSE(recorder.telling());
    CHECK_FALSE(recorder.awaits_write());
  }
}
