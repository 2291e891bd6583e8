// The keeper's mind: everything that it decides, and nothing that it does. The service feeds it with what it sees and
// hears and carries out what it says; the simulator does the same with models. Pure but for its own state: `now` is an
// argument, milliseconds of any monotonic clock.
#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "common/model/account.hpp"
#include "common/model/goal.hpp"
#include "keeper/fsm/plan.hpp"

namespace pgvigil::keeper {

using Millis = std::chrono::milliseconds;

// What a keeper must not forget. On disk before anything is done or answered because of it.
struct KeeperState {
  NodeId node;
  std::string name;
  NodeState reported{NodeState::init};
  std::int64_t reported_seq{0};
  Term term;          // the highest promised; orders of an older one are refused
  Goal goal;          // the last one accepted
  Timeline timeline;  // the highest that WAL was received or written on
  // The timelines that promotions ordered by the monitor may have begun here. An order that was not seen to be carried
  // out may have been, when the next one comes.
  std::vector<Timeline> own_timelines;
  bool foreign_promotion{false};  // PostgreSQL was promoted here by somebody else, or written to instead of following
  std::string system_identifier;  // of the group; empty until this node has belonged to it once
  std::vector<Peer> peers;
  std::int64_t peers_version{-1};
  std::string sslmode{"prefer"};  // by which the others are to reach this node; seen to work
};

// What PostgreSQL said of itself.
struct LocalFacts {
  bool in_recovery{false};
  bool streaming{false};     // standby: walreceiver streams; primary: a registered standby streams
  bool has_receiver{false};  // standby: a walreceiver process exists
  // Standby: all WAL that is here has been read, so that `lsn` will not grow by itself. It grows while a restarted
  // standby replays what it had received before.
  bool settled{true};
  bool replay_paused{false};
  Timeline timeline;
  Lsn lsn;  // primary: flushed; standby: the most received (flushed) or replayed
  History history;
  std::string system_identifier;
  std::string names_in_force;  // synchronous_standby_names as a new session sees it
  std::string conninfo_in_force;
  std::string slot_in_force;
};

class Core {
 public:
  Core(KeeperState state, bool pg_running, Millis now);

  const KeeperState& state() const { return state_; }
  const Goal& goal() const { return state_.goal; }
  const LocalFacts& facts() const { return facts_; }
  bool converged() const;
  // The node to stream from; nullptr when there is none, or it is not known yet.
  const Peer* upstream() const;

  // --- The monitor. Functions that return Save say whether state() has to be on disk before anything else is done.
  enum class Save { no, yes };
  Report report(Millis now) const;
  // For a monitor that has lost its memory.
  Account account(bool copy_unfinished) const;
  // The answer to a report that was sent at `sent`.
  Save answered(const Goal& goal, Millis sent, Millis now);
  Save learned_peers(std::vector<Peer> peers, std::int64_t version);
  Save reached_by(std::string sslmode);
  Millis lease() const { return std::chrono::seconds{state_.goal.lease_seconds}; }
  bool has_lease(Millis now) const;
  bool in_contact(Millis now) const;  // the monitor answers, whether that prolongs a lease or not
  std::optional<Millis> last_answer() const { return last_answer_; }  // when the report was sent that was answered last

  // --- What PostgreSQL does. True: worth a report at once.
  struct Seen {
    bool news{false};
    Save save{Save::no};
  };
  Seen saw(const LocalFacts& facts, Millis now);
  // It has stopped, and ran read-write before: its control file, which names this timeline, says so.
  Save saw_written(Timeline timeline);
  bool saw_process(bool running, Millis now);
  bool saw_silence(Millis now);  // no answer to a query
  bool saw_upstream(UpstreamSight sight);
  bool saw_disk(bool full);
  // The monitor waits for the next figures of this node.
  bool urgent() const;

  // --- Carrying the goal out.
  struct Work {
    enum class Kind { nothing, step, settle } kind{Kind::nothing};
    Step step{Step::start};
    Millis again{1000};  // nothing: ask again after this, or when something happens
  };
  Work next(Millis now);
  void done();
  void failed(std::string reason, Millis now);
  // After the last step, with facts (or the end of WAL of a stopped PostgreSQL) from after it.
  Save settled(std::optional<Lsn> end_of_wal, Millis now);
  void refresh_stopped(const std::string& system_identifier, const WalPosition& position);
  // PostgreSQL is about to be started, with this synchronous_standby_names ("": none) in its configuration.
  void starting(std::string names);
  void started(bool as_standby, bool names_set, Millis now);
  // Whether commits wait at all is told to the backends by the checkpointer, when it gets to reading its configuration
  // (syncrep.c, SyncRepUpdateSyncStandbysDefined()). A promotion that is to wait for standbys must not come before
  // that. A server that was started with a list has it; so has one that has taken a CHECKPOINT since.
  bool must_arm() const { return !state_.goal.names.asynchronous() && !armed_; }
  bool could_arm() const;  // in advance, while there is time
  void wrote_names(const std::string& names);
  void armed() { armed_ = true; }
  // Something that the plan of the present state has to see to.
  void disturb() { dirty_ = true; }
  void progress(std::string words) { reason_ = std::move(words); }
  // The promotion that was ordered has begun this timeline.
  Save promoted(Timeline timeline);
  // What it was before, a former primary that has stopped, a vote, is about to be overwritten: no election has to hear
  // it any more.
  Save copy_begins();
  // Copied or rewound.
  Save copied();
  // Why PostgreSQL may not be started now; nullopt when it may.
  std::optional<std::string> no_start(bool as_standby, bool copy_unfinished, Millis now) const;
  // The same for a promotion: the order may be old by now.
  // `seen`: just now. A timeline that is not older than the one promised for this promotion was begun by a later one.
  std::optional<std::string> no_promotion(const LocalFacts& seen, Millis now) const;
  // Why what lies in PGDATA is not this node's, and nothing may be done to it; nullopt when it is.
  std::optional<std::string> not_ours(const std::string& system_identifier) const;
  // Why this node may not vote; nullopt when it may.
  std::optional<std::string> no_vote() const;

  // --- The fence and the names.
  std::optional<std::string> must_fence(Millis now) const;
  void fenced(const std::string& why, Millis now);
  // A synchronous primary that was cut off from everybody, and has stopped, starts again when a standby is back, with
  // or without a monitor: until one streams, no commit is acknowledged. True: it is time to ask whether one is; less
  // and less often, as long as those that answered have not come to stream.
  bool asks_for_standbys(Millis now) const;
  // A member of its list answers, and is on this timeline. False: it is too early to ask, or that timeline is a later
  // primary's.
  bool found_standby(Timeline timeline, Millis now);
  struct NamesToConfirm {
    SyncNames names;
    std::int64_t version{0};
    // More standbys have to answer than before. A walsender that has not read its configuration goes on releasing
    // commits by the old number, and nothing shows it: the walsenders have to be started anew.
    bool stricter{false};
  };
  bool names_are_due() const;  // to be confirmed
  std::optional<NamesToConfirm> names_to_confirm() const;
  bool names_confirmed(std::int64_t version);  // false: they are not wanted any more
  // This primary's commits wait by other names than were ordered and written.
  bool names_differ() const;

  bool pg_running() const { return pg_running_; }
  bool pg_answering() const { return pg_answering_; }
  const std::string& reason() const { return reason_; }

 private:
  bool names_are_in_force() const;
  bool asynchronous() const;
  bool crashed() const;
  bool plan_is_wanted() const;                // it belongs to the present order
  Save ran_read_write(bool ordered);          // somebody's doing, when this is a standby and nobody has `ordered` it
  void promotion_ordered(Timeline promised);  // may have been carried out, whether that is seen or not

  KeeperState state_;
  // What PostgreSQL was last seen to do.
  bool pg_running_{false};
  bool pg_answering_{false};
  Millis pg_answered_{0};
  std::optional<Millis> crashed_at_;
  LocalFacts facts_;
  std::optional<Lsn> final_lsn_;   // end of WAL of a cleanly stopped PostgreSQL
  std::int64_t names_version_{0};  // of the names in force and satisfied
  int required_{0};                // the least that any walsender may still count by; 0: not known
  // synchronous_standby_names since the present server was started; nullopt: another keeper has started it, or they
  // have been changed since.
  std::optional<std::string> started_with_;
  bool starting_{false};  // and has not answered yet
  UpstreamSight upstream_sight_{UpstreamSight::unknown};
  bool disk_full_{false};
  std::string reason_;
  // Contact.
  Millis began_;
  std::optional<Millis> last_answer_;
  std::optional<Millis> lease_began_;  // when the last report was sent whose answer prolonged the lease
  Millis standby_contact_;
  bool fenced_{false};
  Millis asks_at_{0};       // for standbys, while fenced
  Millis asking_pause_{0};  // the last one; 0: a standby has streamed since
  bool promoting_{false};   // asked to by an order: this server may be a primary, whatever it was last seen to be
  bool names_set_{false};
  bool armed_{false};
  // The plan at work.
  std::optional<Plan> plan_;
  std::size_t at_{0};
  Millis followed_at_{0};  // the last plan's beginning
  std::int64_t plan_seq_{0};
  Term plan_term_;
  NodeState plan_goal_{NodeState::init};
  bool dirty_{true};  // something besides the goal's state has changed: run the plan that keeps us there
  Millis retry_{0};
  Millis retry_at_{0};
};

}  // namespace pgvigil::keeper
