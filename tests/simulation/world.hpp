// One simulated formation: the daemons' own decisions (keeper::Core, plans, fsm::decide, fsm::Liveness) over models of
// PostgreSQL, network, clocks, disks, processes, operators and clients. One seed, one history.
#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "keeper/fsm/core.hpp"
#include "keeper/fsm/prepare.hpp"
#include "monitor/fsm/liveness.hpp"
#include "tests/simulation/faults.hpp"
#include "tests/simulation/postgres.hpp"
#include "tests/simulation/random.hpp"
#include "tests/simulation/store.hpp"
#include "tests/simulation/wheel.hpp"

namespace pgvigil::simulation {

struct Outcome {
  std::string violation;  // empty: none
  std::uint64_t hash{0};  // of the whole history
  std::int64_t events{0};
  std::int64_t acknowledged{0};
  std::int64_t promotions{0};
  std::int64_t decisions{0};
  std::set<int> rules;  // that decided something
  Time ended{0};
};

class World {
 public:
  // `trace`: print what happens. `disabled`: faults of the plan that are left out (the shrinker's way).
  World(std::uint64_t seed, bool trace, std::set<int> disabled = {},
        std::unique_ptr<Store> store = std::make_unique<Store>());
  Outcome run();
  const Plan& plan() const { return plan_; }

 private:
  enum class Kind : std::uint8_t {
    keeper_tick,
    link,
    report_arrives,
    answer_arrives,
    session_closed,
    evaluate,
    monitor_tick,
    deliver,
    acknowledge,
    started,
    stopped,
    reload,
    checkpointer,
    receiver,
    write,
    fault,
    check,
    background_checkpoint,
    restart_keeper,
    restart_monitor,
    restart_database,
    register_node,
    lose_successor,
    lose_voter,
    set_timings,
    ask_meanwhile
  };
  struct Event {
    Time at{0};
    Kind kind{Kind::check};
    int node{0};
    int other{0};
    std::int64_t life{0};
  };

  struct Keeper {
    bool registered{false};
    bool alive{false};
    int life{0};
    Time paused_until{0};
    std::optional<keeper::Core> core;
    keeper::LocalFacts facts;
    std::optional<keeper::KeeperState> disk;
    bool gone{false};  // dropped: the process has ended for good
    // monitor link
    int session{0};  // 0: none; numbers grow
    int last_session{0};
    bool awaiting{false};
    Time sent{0};
    bool wants_report{false};
    bool asked{false};  // the monitor has lost its memory, and wants an account
    Time heartbeat{1000};
    Time heartbeat_at{0};
    // the step at work
    bool busy{false};
    keeper::Step step{keeper::Step::start};
    int stage{0};
    Time begun{0};
    Time ready_at{0};
    keeper::Prepared prepared;
    int source{0};
    std::uint64_t target{0};
    // confirmation of names
    int confirming{0};  // stage
    keeper::Core::NamesToConfirm wanted;
    std::uint64_t position{0};
    Time confirm_at{0};
    int confirm_life{0};
    Time begun_confirming{0};
    Time ticks_at{0};  // 0: not at all
    bool ticking{false};
    Time link_at{0};
    Time started_at{0};
    bool settling{false};
    std::int64_t term{0};   // in which the step was ordered
    std::int64_t told{0};   // the highest term that it has told the monitor of: a promise, whatever happens to it
    std::int64_t order{0};  // the goal's seq that a preparation belongs to
    Time looks_up_at{0};
    int rate{1000};  // of its clock, per mille
    Time offset{0};
    int priority{50};
    bool quorum{true};
  };
  struct Message {
    Report report;
    std::optional<Account> account;  // instead of a report
    Goal goal;
    Store::Answer answer{Store::Answer::refused};
    int session{0};
    int database{0};
    Time sent_local{0};
  };

  // --- world.cpp: the loop
  void at(Time when, Kind kind, int node = 0, int other = 0, std::int64_t life = 0);
  void handle(const Event& event);
  void note(const std::string& text);
  void fail(const std::string& what);
  bool usable(int from, int to) const {
    return now_ >= cut_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
  }
  bool both_ways(int a, int b) const { return usable(a, b) && usable(b, a); }
  Time latency();
  // What slow timings add to every limit of a check.
  Time longer() const {
    const bool slow =
        plan_.timings == Timings::wan || (plan_.timings_change > 0 && plan_.later_timings == Timings::wan);
    return slow ? 60000 : 0;
  }
  Postgres& pg(int node) { return postgres_[static_cast<std::size_t>(node)]; }
  Keeper& keeper_of(int node) { return keepers_[static_cast<std::size_t>(node)]; }
  keeper::Millis local(int node) const;
  static int index_of(NodeId id) { return static_cast<int>(id.value); }

  // --- keeper_model.cpp
  void start_keeper(int node);
  void kill_keeper(int node);
  void tick(int node);
  void look(int node);
  bool keeps_its_quorum(int node);
  void wake(int node, Time delay = 1);
  void wake_link(int node, Time delay = 1);
  void save(int node, keeper::Core::Save save);
  void reconcile(int node);
  void begin_step(int node, keeper::Step step);
  void work_on_step(int node);
  void step_done(int node);
  void step_failed(int node, const std::string& why);
  void settle(int node);
  void confirm(int node);
  void look_up(int node);
  void look_for_standbys(int node);
  void step_start(int node);
  void step_prepare(int node);
  void step_cut_off(int node);
  void step_stop(int node);
  void step_promote(int node);
  void step_fetch(int node);
  // link
  void link(int node);
  void send_report(int node);
  std::size_t new_message();
  void report_arrives(int node, std::int64_t message);
  bool answered(int node, Message& message);
  void answer_arrives(int node, std::int64_t message);
  void heard(int node, const Message& message);
  bool asked_for_account(int node, Store::Answer answer);
  void close_session(int node, bool by_process);

  // --- postgres_model.cpp
  void begin_start(int node);
  void started(int node);
  void crash(int node);
  void begin_stop(int node);
  void try_stop(int node);
  void reload(int node);
  void set_in_force(int node);
  void receiver(int node);
  void detach(int standby);
  void new_wal(int node);
  void deliver(int standby, std::int64_t session);
  void acknowledge(int primary, int standby, std::int64_t session);
  void write(int node);
  void release(int node);
  void acknowledged(int node, const Commit& commit);
  void promoted(int node);
  void late_promotion(int node, std::int64_t term);
  bool disk_full(int node) const { return now_ < full_until_[static_cast<std::size_t>(node)]; }
  void disk_fills(int node);
  void destroy_check(int node);
  std::uint64_t append(int node);

  // --- monitor_model.cpp
  void evaluate();
  void monitor_tick();
  void wake_monitor();
  ProbeResult probe(int node);
  void apply(const fsm::Decision& decision);
  void not_of_the_past(Term term);
  void set_timings(Timings timings);
  void operator_asks(RequestKind kind, int node, bool allow);
  void writer_steps_down();

  // --- faults.cpp / check.cpp
  void inject(const Fault& fault);
  void heal();
  void check();
  std::string unhealthy();
  std::string explanations() const;
  void kill_again();
  void kill_unheard(int primary);
  void lose_successor(int former);
  void go_away(int node);
  void part_and_kill(const NodeView& primary);
  void lose_voter(int primary);
  void restore_monitor(int value);
  void forget_choice();
  void help_to_learn();
  void empty_what_is_refused();
  void after_the_standby();
  void hang_standby();
  void beside_the_hung();
  // lasting.cpp
  int protectors(const NodeView& primary) const;
  bool bears_a_fault(const NodeView* primary) const;
  void begin_lasting_fault();
  void beside_the_fault();
  void ask_meanwhile();
  void without_the_primary();

  std::uint64_t seed_;
  Plan plan_;
  Random random_;
  bool trace_;
  std::set<int> disabled_;
  Outcome outcome_;
  Wheel<Event> events_;
  Time now_{0};
  bool finished_{false};
  std::array<std::array<Time, max_nodes>, max_nodes> cut_{};
  Time noisy_until_{0};
  int loss_{0};
  int jitter_{0};

  Branches branches_;
  std::array<Postgres, max_nodes> postgres_;
  std::array<Keeper, max_nodes> keepers_;
  std::array<Time, max_nodes> broken_until_{};  // PostgreSQL does not start
  std::array<Time, max_nodes> full_until_{};    // nothing can be written where PGDATA lies
  int nodes_{0};                                // indexes 1..nodes_ have been used
  std::deque<Message> messages_;                // on their way, and places that are free
  std::vector<std::size_t> free_messages_;

  std::unique_ptr<Store> own_store_;
  Store& store_;
  std::vector<Store> backups_;  // of the monitor's database
  int databases_{0};            // how often it was replaced
  Time learning_since_{0};
  fsm::Liveness liveness_;
  bool monitor_alive_{true};
  bool database_up_{true};
  bool evaluation_due_{false};
  std::array<std::set<int>, max_nodes> sessions_;  // open, as the monitor's PostgreSQL sees them
  std::array<fsm::ProbeView, max_nodes> probes_{};

  // what the checks remember
  int first_branch_{0};               // of the present system; what older ones did is past
  std::vector<std::uint64_t> acked_;  // highest acknowledged record on each branch
  std::int64_t highest_promotion_{0};
  std::set<int> named_;            // promotions that an operator asked for by name
  std::int64_t forced_term_{0};    // of the last choice by force
  std::set<int> chosen_by_force_;  // whose old acknowledgements an operator gave up
  bool removed_by_force_{false};
  std::set<int> removed_;         // by force, and not promoted since
  bool learned_by_force_{false};  // who was not heard then may hold up the next election
  std::set<int> forgotten_;       // chosen by force, and the memory of that was lost: what they acknowledge is nobody's
  bool removals_forgotten_{false};  // with the monitor's memory: nobody knows what such a node still acknowledges
  Time last_ack_{0};
  bool healed_{false};
  Time heal_deadline_{0};
  Time healthy_since_{-1};
  Time asked_help_at_{0};
  int rounds_{0};
  int away_{0};  // a primary that does not come back for long after the storm
  Time away_until_{0};
  Time maintenance_at_{-1};  // healing: somebody was in maintenance still, and a command was pending
  int hung_{0};              // a standby whose PostgreSQL hangs for long, with its keeper at work
  Time hung_judged_at_{0};
  int lasting_faults_{0};  // that were to begin
  int lasting_writer_{0};  // that goes on; 0: perhaps another one
  int lasting_victim_{0};  // of the first one
  int lasting_spare_{0};   // nodes more than the number of standbys that have to confirm; negative: commits wait
  Time lasting_judged_at_{0};
  Time lasting_ends_{0};
  int second_victim_{0};  // failures one after another: the primary goes when the standby's loss has been digested
  Time second_at_{0};
  std::int64_t quiet_term_{0};
};

}  // namespace pgvigil::simulation
