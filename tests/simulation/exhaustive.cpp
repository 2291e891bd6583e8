// Breadth-first over everything that small groups can come to: no luck, no time. A state is abstract: what each node
// is, what it is to be, whether it runs and is heard, where its WAL stands relative to the others', which lists may be
// in force. From every state that is reached:
//   - no two nodes are to take writes, and an old primary that still runs can acknowledge nothing once another is
//   chosen;
//   - whoever is chosen holds every acknowledged commit;
//   - the keeper has a plan for every pair of reported and assigned state;
//   - when everybody comes back and does as told, the group comes to rest with one primary, all others secondary.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "keeper/fsm/plan.hpp"
#include "monitor/fsm/decide.hpp"
#include "monitor/fsm/explain.hpp"
#include "monitor/fsm/predicates.hpp"

using namespace pgvigil;

namespace {

std::uint64_t most_writes = 2;  // how far WAL is told apart

struct Node {
  bool lost{false};          // not heard by the monitor: dead, or cut off
  bool runs{true};           // its PostgreSQL runs (also when it is cut off)
  SyncNames in_force;        // of a node that takes writes
  std::int64_t attached{0};  // streams from this node
};

struct State {
  GroupSnapshot group;
  std::vector<Node> nodes;
  std::uint64_t acknowledged{0};

  // Timelines only by their order: their numbers grow with every promotion.
  std::size_t rank(Timeline timeline) const {
    std::set<Timeline> lower;
    for (const NodeView& view : group.nodes) {
      if (view.timeline < timeline) lower.insert(view.timeline);
    }
    return lower.size();
  }

  std::string key() const {
    std::string text = std::to_string(group.number_sync_standbys) +
                       (group.request ? std::string(to_string(group.request->kind)) +
                                            std::to_string(group.request->node.value_or(NodeId{0}).value)
                                      : "") +
                       "a" + std::to_string(acknowledged);
    for (const NamesInForce& entry : group.names)
      text += "|" + to_guc(entry.names) + "/" + std::to_string(entry.by.value) + "h" + std::to_string(entry.heir.value);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const NodeView& view = group.nodes[i];
      text += ";" + std::to_string(static_cast<int>(view.reported)) + ">" +
              std::to_string(static_cast<int>(view.goal)) + (view.converged() ? "=" : "~") +
              (nodes[i].lost ? "L" : "h") + (nodes[i].runs ? "r" : "s") + to_guc(nodes[i].in_force) + "@" +
              std::to_string(nodes[i].attached) + "w" + std::to_string(view.lsn.value) + "t" +
              std::to_string(rank(view.timeline)) + (view.reported_term == group.term ? "T" : "o") +
              (view.names_version == group.names_version ? "v" : "-");
    }
    return text;
  }
};

std::size_t index_of(const State& state, NodeId id) {
  for (std::size_t i = 0; i < state.group.nodes.size(); ++i) {
    if (state.group.nodes[i].id == id) return i;
  }
  return state.group.nodes.size();
}

// What the monitor sees of a node that it hears, or does not.
void look(State& state) {
  for (std::size_t i = 0; i < state.nodes.size(); ++i) {
    NodeView& view = state.group.nodes[i];
    const Node& node = state.nodes[i];
    view.session_open = !node.lost;
    view.ever_reported = true;
    view.heard_for = Millis{3600000};
    view.report_age = view.session_closed_for = view.not_streaming_for = Millis{node.lost ? 20000 : 0};
    view.goal_age = Millis{0};
    view.probe = node.lost ? ProbeResult::silent : node.runs ? ProbeResult::good : ProbeResult::refused;
    view.probe_not_good_for = Millis{node.lost ? 20000 : 0};
    if (node.lost) continue;
    view.pg_running = view.pg_responding = node.runs;
    view.streaming = node.runs && node.attached != 0;
    if (!view.streaming && runs_as_standby(view.reported)) view.not_streaming_for = Millis{20000};
  }
}

void apply(State& state, const fsm::Decision& decision) {
  GroupSnapshot& group = state.group;
  if (decision.term) group.term = *decision.term;
  if (decision.promised_timeline) group.promised_timeline = *decision.promised_timeline;
  if (decision.confirm_names) group.names = {group.names.back()};
  if (decision.heir) set_heir(group.names, *decision.heir);
  if (decision.names_goal) {
    add_names(group.names, *decision.names_goal);
    ++group.names_version;
  }
  for (const fsm::GoalChange& change : decision.goals) {
    NodeView& view = group.nodes[index_of(state, change.node)];
    view.goal = change.goal;
    view.source = change.source;
    ++view.goal_seq;
  }
  for (const NodeId id : decision.remove) {
    const auto i = static_cast<std::ptrdiff_t>(index_of(state, id));
    group.nodes.erase(group.nodes.begin() + i);
    state.nodes.erase(state.nodes.begin() + i);
  }
  if (decision.request != fsm::RequestOutcome::pending) group.request.reset();
}

// A standby gets everything that `from` has.
void receive(State& state, std::size_t i, const NodeView& from) {
  state.group.nodes[i].lsn = from.lsn;
  state.group.nodes[i].timeline = from.timeline;
}

// The keeper of node i does what it was told.
void carry_out(State& state, std::size_t i) {
  NodeView& view = state.group.nodes[i];
  Node& node = state.nodes[i];
  const bool was_standby = runs_as_standby(view.reported);
  const NodeView* upstream = fsm::writer(state.group);
  if (upstream == nullptr) upstream = fsm::leaving_primary(state.group);
  node.runs =
      takes_writes(view.goal) || runs_as_standby(view.goal) || (view.goal == NodeState::maintenance && was_standby);
  if (takes_writes(view.goal)) {
    if (was_standby) view.timeline = state.group.promised_timeline;
    node.in_force = SyncNames{};
    if (!state.group.names.empty() && state.group.names.back().by == view.id)
      node.in_force = state.group.names.back().names;
    node.attached = 0;
    view.names_version = 0;
  } else if (view.goal == NodeState::catchingup || view.goal == NodeState::secondary ||
             view.goal == NodeState::join_secondary || view.goal == NodeState::prepare_promotion ||
             view.goal == NodeState::wait_maintenance) {
    // It can follow only somebody who is there.
    if (upstream == nullptr || upstream == &view) return;
    const std::size_t up = index_of(state, upstream->id);
    const bool there = state.nodes[up].runs && !state.nodes[up].lost;
    const bool copies = view.goal == NodeState::catchingup || view.goal == NodeState::join_secondary;
    if (copies && !there) return;
    if (there) {
      node.attached = upstream->id.value;
      receive(state, i, *upstream);
    }
  } else if (view.goal == NodeState::fast_forward) {
    const NodeView* source = view.source ? state.group.find(*view.source) : nullptr;
    const bool there = source != nullptr && state.nodes[index_of(state, source->id)].runs &&
                       !state.nodes[index_of(state, source->id)].lost;
    if (!there) return;
    receive(state, i, *source);
    node.attached = 0;
  } else {
    if (view.goal == NodeState::draining || view.goal == NodeState::prepare_maintenance) {
      // A stop waits until those who stream have everything.
      for (std::size_t m = 0; m < state.nodes.size(); ++m) {
        if (state.nodes[m].attached == view.id.value && state.nodes[m].runs && !state.nodes[m].lost)
          receive(state, m, view);
      }
    }
    node.attached = 0;
  }
  view.reported = view.goal;
  view.reported_seq = view.goal_seq;
  view.reported_term = state.group.term;
}

// The primary confirms its names when enough members are attached and hold everything.
void confirm(State& state, std::size_t i) {
  NodeView& view = state.group.nodes[i];
  if (!takes_writes(view.reported) || !view.converged() || state.group.names.empty() ||
      state.group.names.back().by != view.id)
    return;
  const SyncNames& names = state.group.names.back().names;
  int holding = 0;
  for (const NodeId member : names.members) {
    const std::size_t m = index_of(state, member);
    if (m < state.nodes.size() && state.nodes[m].runs && !state.nodes[m].lost &&
        state.nodes[m].attached == view.id.value) {
      receive(state, m, view);
      ++holding;
    }
  }
  state.nodes[i].in_force = names;
  if (holding >= names.required) view.names_version = state.group.names_version;
}

// Node i, if it runs and takes writes, gets a commit acknowledged by just the standbys that it needs. False: it cannot.
bool write(State& state, std::size_t i, bool also_local) {
  NodeView& view = state.group.nodes[i];
  const Node& node = state.nodes[i];
  if (!takes_writes(view.reported) || !node.runs || view.lsn.value >= most_writes) return false;
  std::vector<std::size_t> attached;
  for (const NodeId member : node.in_force.members) {
    const std::size_t m = index_of(state, member);
    if (m < state.nodes.size() && state.nodes[m].runs && state.nodes[m].attached == view.id.value)
      attached.push_back(m);
  }
  if (static_cast<int>(attached.size()) < node.in_force.required) {
    if (also_local) ++view.lsn.value;  // written here, acknowledged to nobody
    return also_local;
  }
  ++view.lsn.value;
  attached.resize(static_cast<std::size_t>(node.in_force.required));
  for (const std::size_t m : attached) receive(state, m, view);
  state.acknowledged = std::max(state.acknowledged, view.lsn.value);
  return true;
}

class Search {
 public:
  Search(std::size_t limit, bool operators) : limit_(limit), operators_(operators) {}

  void begin(int count, int required) {
    State state;
    state.group.formation = "default";
    state.group.number_sync_standbys = required;
    state.group.term = Term{1};
    state.group.promised_timeline = Timeline{1};
    for (int i = 1; i <= count; ++i) {
      NodeView view;
      view.id = NodeId{i};
      view.name = "n" + std::to_string(i);
      view.goal = view.reported = i == 1 ? NodeState::primary : NodeState::secondary;
      view.goal_seq = view.reported_seq = 1;
      view.reported_term = Term{1};
      view.timeline = Timeline{1};
      view.lsn = Lsn{1};
      state.group.nodes.push_back(view);
      Node node;
      node.attached = i == 1 ? 0 : 1;
      state.nodes.push_back(node);
    }
    SyncNames names{std::max(1, required), {}};
    for (int i = 2; i <= count; ++i) names.members.push_back(NodeId{i});
    state.group.names = {NamesInForce{names, NodeId{1}}};
    state.group.names_version = 1;
    state.group.nodes[0].names_version = 1;
    state.nodes[0].in_force = names;
    state.acknowledged = 1;
    push(std::move(state), "begin");
  }

  bool run() {
    while (!todo_.empty() && seen_.size() < limit_ && violation_.empty()) {
      const auto [state, steps] = std::move(todo_.front());
      todo_.pop_front();
      steps_ = steps;
      check_liveness(state);
      successors(state);
    }
    return violation_.empty();
  }
  std::size_t states() const { return seen_.size(); }
  bool complete() const { return todo_.empty(); }
  // Everything that this many steps lead to has been seen.
  int depth() const { return steps_; }
  const std::string& violation() const { return violation_; }

 private:
  void successors(const State& state) {
    for (std::size_t i = 0; i < state.nodes.size(); ++i) {
      const auto change = [&](const char* what, auto body) {
        State next = state;
        body(next);
        push(std::move(next), what);
      };
      if (!state.nodes[i].lost) {
        change("carries out", [&](State& next) { carry_out(next, i); });
        change("confirms", [&](State& next) { confirm(next, i); });
        change("dies", [&](State& next) {
          next.nodes[i].lost = true;
          next.nodes[i].runs = false;
          next.nodes[i].attached = 0;
        });
        change("is cut off", [&](State& next) { next.nodes[i].lost = true; });
      } else {
        change("comes back", [&](State& next) {
          next.nodes[i].lost = false;
          next.nodes[i].runs =
              takes_writes(next.group.nodes[i].reported) || runs_as_standby(next.group.nodes[i].reported);
        });
      }
      change("writes", [&](State& next) { write(next, i, true); });
      if (!operators_ || state.group.request) continue;
      for (const auto kind : {RequestKind::promotion, RequestKind::start_maintenance, RequestKind::stop_maintenance}) {
        change("request", [&](State& next) {
          next.group.request = Request{1, kind, next.group.nodes[i].id, false, true, Millis{0}};
        });
      }
    }
  }

  void settle(State& state, Millis goal_age = Millis{0}) {
    for (int i = 0; i < 60; ++i) {
      look(state);
      for (NodeView& view : state.group.nodes) {
        if (!view.converged() || view.goal == NodeState::draining || view.goal == NodeState::prepare_maintenance)
          view.goal_age = goal_age;
      }
      if (state.group.request) state.group.request->age = goal_age;
      const auto decision = fsm::decide(state.group);
      if (!decision) return;
      if (i == 59) fail(state, "decisions do not come to rest");
      check_choice(state, *decision);
      apply(state, *decision);
      int writers = 0;
      for (const NodeView& view : state.group.nodes) {
        writers += takes_writes(view.goal) ? 1 : 0;
        if (!keeper::plan(view.reported, view.goal)) {
          fail(state,
               "no plan from " + std::string(to_string(view.reported)) + " to " + std::string(to_string(view.goal)));
        }
      }
      if (writers > 1) fail(state, "two nodes are to take writes");
    }
  }

  void check_choice(const State& state, const fsm::Decision& decision) {
    for (const fsm::GoalChange& change : decision.goals) {
      const std::size_t i = index_of(state, change.node);
      const NodeView& view = state.group.nodes[i];
      if (!takes_writes(change.goal) || !runs_as_standby(view.reported)) continue;
      if (view.lsn.value < state.acknowledged) fail(state, view.name + " is chosen without an acknowledged commit");
      for (std::size_t other = 0; other < state.nodes.size(); ++other) {
        State next = state;
        // The chosen one and the voters are cut off; what others still stream from each other stays.
        for (std::size_t v = 0; v < next.nodes.size(); ++v) {
          if (fsm::has_voted(next.group, next.group.nodes[v])) next.nodes[v].attached = 0;
        }
        next.group.nodes[other].lsn = Lsn{0};
        const auto before = next.acknowledged;
        next.acknowledged = 0;
        if (other != i && write(next, other, false))
          fail(state, next.group.nodes[other].name + " can still acknowledge when " + view.name + " is chosen");
        next.acknowledged = before;
      }
    }
  }

  // Everybody comes back and does as told: one primary, the others secondary (or in maintenance).
  void check_liveness(State state) {
    for (Node& node : state.nodes) node.lost = false;
    for (std::size_t i = 0; i < state.nodes.size(); ++i) {
      state.nodes[i].runs =
          takes_writes(state.group.nodes[i].reported) || runs_as_standby(state.group.nodes[i].reported);
    }
    const State begun = state;
    for (int round = 0; round < 60; ++round) {
      settle(state, round % 10 == 9 ? Millis{100000} : Millis{0});  // time limits pass at last
      if (!violation_.empty()) return;
      if (resting(state)) return;
      for (std::size_t i = 0; i < state.nodes.size(); ++i) {
        carry_out(state, i);
        confirm(state, i);
      }
    }
    fail(begun, "no way out; in the end " + state.key());
  }

  static bool resting(const State& state) {
    int primaries = 0;
    for (const NodeView& view : state.group.nodes) {
      if (!view.converged()) return false;
      const bool well =
          takes_writes(view.goal) || view.goal == NodeState::secondary || view.goal == NodeState::maintenance;
      if (!well) return false;
      primaries += takes_writes(view.goal) ? 1 : 0;
    }
    return primaries == 1;
  }

  void push(State state, const char* what) {
    what_ = what;
    settle(state);
    if (!violation_.empty()) return;
    if (!resting(state) && fsm::explain(state.group).empty()) return fail(state, "nobody says why it does not go on");
    // Of ten million keys two have the same hash once in 400,000 searches.
    if (seen_.insert(std::hash<std::string>{}(state.key())).second) todo_.emplace_back(std::move(state), steps_ + 1);
  }

  void fail(const State& state, const std::string& what) {
    if (violation_.empty()) violation_ = what + "\n  after '" + what_ + "' in " + state.key();
  }

  std::size_t limit_;
  bool operators_;
  std::unordered_set<std::size_t> seen_;
  std::deque<std::pair<State, int>> todo_;
  int steps_{-1};  // that the state in hand is away from the beginning
  std::string violation_;
  const char* what_{""};
};

}  // namespace

int main(int argc, char** argv) {
  constexpr std::size_t enough_for_two = 200000;
  const std::size_t limit = argc > 1 ? static_cast<std::size_t>(std::strtoull(argv[1], nullptr, 10)) : enough_for_two;
  if (argc > 2) most_writes = std::strtoull(argv[2], nullptr, 10);
  int failed = 0;
  int passed = 0;
  for (const int nodes : {2, 3}) {
    for (int required = 0; required < nodes; ++required) {
      for (const bool operators : {false, true}) {
        Search search(limit, operators);
        search.begin(nodes, required);
        bool ok = search.run();
        // That nothing was found says something only of what was searched.
        const bool too_little = ok && nodes == 2 && limit >= enough_for_two && !search.complete();
        ok = ok && !too_little;
        std::printf("%s  %d nodes, number_sync_standbys %d%s: %zu states, %s%d steps deep\n", ok ? "ok    " : "FAILED",
                    nodes, required, operators ? ", with operators" : "", search.states(),
                    search.complete() ? "all of them, " : "not all: the limit; complete ", search.depth());
        if (!ok) std::printf("  %s\n", too_little ? "two nodes are to be searched whole" : search.violation().c_str());
        ++(ok ? passed : failed);
      }
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 ? 1 : 0;
}
