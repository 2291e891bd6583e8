#include "keeper/fsm/core.hpp"

#include <algorithm>
#include <utility>

#include "keeper/fsm/fence.hpp"

namespace pgvigil::keeper {

namespace {

constexpr Millis first_retry{100};
constexpr Millis last_retry{5000};
constexpr Millis idle{1000};
// After a crash of a primary's PostgreSQL the monitor may prefer a failover; it decides well within this time.
constexpr Millis failover_first{500};
// PostgreSQL that has not answered for this long does not answer.
constexpr Millis answer_limit{2000};
// A standby that has not caught up looks now and then whether its data still fits its upstream: a walreceiver that
// fails again and again seems to stream in between.
constexpr Millis following_check{5000};
// A primary that was started for standbys which then did not come is not started for them more often than this.
constexpr Millis longest_asking_pause{600000};

bool must_run(NodeState state) {
  return takes_writes(state) || runs_as_standby(state);
}

}  // namespace

Core::Core(KeeperState state, bool pg_running, Millis now)
    : state_(std::move(state)), pg_running_(pg_running), began_(now), standby_contact_(now) {}

bool Core::converged() const {
  return state_.reported == state_.goal.state && state_.reported_seq == state_.goal.seq;
}

const Peer* Core::upstream() const {
  if (!state_.goal.upstream) return nullptr;
  const auto found = std::find_if(state_.peers.begin(), state_.peers.end(),
                                  [&](const Peer& peer) { return peer.id == *state_.goal.upstream; });
  return found == state_.peers.end() ? nullptr : &*found;
}

Report Core::report(Millis now) const {
  Report report;
  report.node = state_.node;
  report.state = state_.reported;
  report.term = state_.term;
  report.goal_seq = state_.reported_seq;
  report.pg_running = pg_running_;
  report.pg_responding = pg_running_ && pg_answering_ && now - pg_answered_ < answer_limit;
  report.timeline = std::max(state_.timeline, facts_.timeline);
  report.lsn = pg_running_ ? facts_.lsn : final_lsn_.value_or(Lsn{});
  // A vote whose server has been restarted reads its WAL again: until it has, nobody may take what it has read for all.
  const bool vote = state_.reported == NodeState::report_lsn || state_.reported == NodeState::stop_replication ||
                    state_.reported == NodeState::fast_forward;
  if (vote && (!pg_answering_ || !facts_.settled)) report.lsn = Lsn{};
  report.history = facts_.history;
  report.names_version = names_version_;
  report.upstream = upstream_sight_;
  // What a server has said that hangs is past: its primary must not wait for it for ever.
  report.streaming = report.pg_responding && facts_.streaming;
  report.reason = disk_full_ && reason_.empty() ? "no room is left on the disk of PGDATA" : reason_;
  report.disk_full = disk_full_;
  report.system_identifier = facts_.system_identifier;
  return report;
}

Account Core::account(bool copy_unfinished) const {
  Account account;
  // copied(), and not seen at work since: a rewound standby may wait for WAL that nobody has any more.
  account.copy_unfinished = copy_unfinished || state_.timeline.value == 0;
  account.reported = state_.reported;
  account.goal = state_.goal.state;
  account.term = state_.term;
  account.seq = std::max(state_.goal.seq, state_.reported_seq);
  account.names = state_.goal.names;
  account.names_version = std::max(state_.goal.names_version, names_version_);  // what it reports, too
  account.names_confirmed = names_version_ > 0 && names_version_ == state_.goal.names_version;
  account.timeline = state_.timeline;
  account.promised_timeline = state_.goal.promised_timeline;
  for (const Timeline own : state_.own_timelines) account.promised_timeline = std::max(account.promised_timeline, own);
  account.number_sync_standbys = state_.goal.number_sync_standbys;
  account.lease_seconds = state_.goal.lease_seconds;
  account.peers = state_.peers;
  account.peers_version = state_.peers_version;
  return account;
}

Core::Save Core::answered(const Goal& goal, Millis sent, Millis now) {
  const Goal& held = state_.goal;
  // An answer that was overtaken by a later one. It proves no contact: the monitor of that answer may be gone.
  if (goal.term < state_.term || (goal.term == state_.term && goal.seq < held.seq)) return Save::no;
  last_answer_ = sent;
  // Who is told to stop, or to go, has no lease, however often it is told so.
  if (!ends_lease(goal.state)) lease_began_ = sent;
  const bool moved = goal.state != held.state || goal.term != held.term || goal.seq != held.seq;
  const bool details = goal.names != held.names || goal.names_version != held.names_version ||
                       goal.upstream != held.upstream || goal.lease_seconds != held.lease_seconds ||
                       goal.promised_timeline != held.promised_timeline ||
                       goal.number_sync_standbys != held.number_sync_standbys;
  const bool floor = goal.wal_floor != held.wal_floor;
  if (!moved && !details) {
    if (floor) state_.goal.wal_floor = goal.wal_floor;  // not worth a write: it is told again
    return Save::no;
  }
  // Version numbers are a monitor's own: one that has lost its memory may give a number anew.
  if (goal.names != held.names) {
    names_version_ = 0;
    // What was ordered last may be in force already, confirmed or not.
    if (required_ > 0) required_ = std::min(required_, held.names.required);
  }
  state_.goal = goal;
  state_.term = goal.term;
  if (takes_writes(goal.state) && !takes_writes(state_.reported)) promotion_ordered(goal.promised_timeline);
  if (details) dirty_ = true;
  if (retry_.count() > 0) retry_ = first_retry;  // a new order ends the patience with the old one
  retry_at_ = now;
  return Save::yes;
}

void Core::promotion_ordered(Timeline promised) {
  auto& own = state_.own_timelines;
  std::erase_if(own, [&](Timeline begun) { return begun == promised || begun < state_.timeline; });
  own.push_back(promised);
}

Core::Save Core::learned_peers(std::vector<Peer> peers, std::int64_t version) {
  state_.peers = std::move(peers);
  state_.peers_version = version;
  dirty_ = true;
  return Save::yes;
}

Core::Save Core::reached_by(std::string sslmode) {
  state_.sslmode = std::move(sslmode);
  dirty_ = true;
  return Save::yes;
}

bool Core::has_lease(Millis now) const {
  return lease_began_ && now - *lease_began_ < lease();
}

bool Core::in_contact(Millis now) const {
  return last_answer_ && now - *last_answer_ < lease();
}

Core::Seen Core::saw(const LocalFacts& facts, Millis now) {
  Seen seen;
  // As a report of this keeper, held up for a while itself, may just have said.
  const bool was_answering = std::exchange(pg_answering_, true) && now - pg_answered_ < answer_limit;
  pg_answered_ = now;
  seen.news = !was_answering || facts.streaming != facts_.streaming || facts.in_recovery != facts_.in_recovery ||
              facts.timeline != facts_.timeline || facts.history != facts_.history ||
              (urgent() && facts.lsn != facts_.lsn);
  facts_ = facts;
  pg_running_ = true;
  crashed_at_.reset();
  // Standbys get the length of a lease to find a primary that was started.
  if (std::exchange(starting_, false)) standby_contact_ = now;
  if (facts.streaming && !facts.in_recovery) {
    standby_contact_ = now;
    asking_pause_ = Millis{0};
  }
  if (facts.timeline > state_.timeline) {
    state_.timeline = facts.timeline;
    seen.save = Save::yes;
  }
  const auto& own = state_.own_timelines;
  const bool ordered = std::find(own.begin(), own.end(), facts.timeline) != own.end();
  if (!facts.in_recovery && ran_read_write(ordered) == Save::yes) {
    seen.save = Save::yes;
    seen.news = true;
  }
  return seen;
}

Core::Save Core::ran_read_write(bool ordered) {
  const bool standby = runs_as_standby(state_.reported) || state_.reported == NodeState::maintenance;
  if (!standby || ordered || takes_writes(state_.goal.state) || state_.foreign_promotion) return Save::no;
  state_.foreign_promotion = true;
  return Save::yes;
}

Core::Save Core::saw_written(Timeline timeline) {
  // What has been copied or rewound was a primary's before, and has not been seen at work since.
  if (state_.timeline.value == 0) return Save::no;
  // Up to its first checkpoint after a promotion the control file has the timeline of before. And a former primary may
  // have stopped, rest (maintenance) or be about to be overwritten, without having been a standby yet.
  const auto& own = state_.own_timelines;
  return ran_read_write(std::any_of(own.begin(), own.end(), [&](Timeline begun) { return begun >= timeline; }));
}

bool Core::saw_process(bool running, Millis now) {
  if (running == pg_running_) return false;
  pg_running_ = running;
  if (running) {
    final_lsn_.reset();
  } else {
    pg_answering_ = promoting_ = false;
    facts_.streaming = false;
    started_with_.reset();
    starting_ = false;
    crashed_at_ = now;
    dirty_ = true;
  }
  return true;
}

bool Core::saw_silence(Millis now) {
  if (!pg_answering_ || now - pg_answered_ < answer_limit) return false;
  pg_answering_ = false;
  return true;
}

bool Core::saw_upstream(UpstreamSight sight) {
  return std::exchange(upstream_sight_, sight) != sight;
}

bool Core::saw_disk(bool full) {
  return std::exchange(disk_full_, full) != full;
}

bool Core::urgent() const {
  return !converged() || state_.reported == NodeState::prepare_promotion || state_.reported == NodeState::catchingup ||
         state_.reported == NodeState::join_secondary || state_.reported == NodeState::report_lsn;
}

// Confirmed, or in force from the start: a server that was started with them has never run without.
bool Core::names_are_in_force() const {
  if (names_version_ == state_.goal.names_version) return true;
  return started_with_ && *started_with_ == to_guc(state_.goal.names);
}

bool Core::asynchronous() const {
  return state_.goal.names.asynchronous() || !names_are_in_force();
}

bool Core::crashed() const {
  return must_run(state_.goal.state) && !pg_running_;
}

bool Core::plan_is_wanted() const {
  return plan_seq_ == state_.goal.seq && plan_term_ == state_.term && plan_goal_ == state_.goal.state;
}

Core::Work Core::next(Millis now) {
  Work work;
  if (plan_ && !plan_is_wanted()) plan_.reset();  // a new order
  if (plan_) {
    if (at_ == plan_->size()) return {Work::Kind::settle, Step::start, Millis{0}};
    const Step step = (*plan_)[at_];
    if (step == Step::promote) promoting_ = true;
    return {Work::Kind::step, step, Millis{0}};
  }
  if (now < retry_at_) {
    work.again = std::min(idle, retry_at_ - now);
    return work;
  }
  const bool following = state_.goal.state == NodeState::catchingup || state_.goal.state == NodeState::join_secondary;
  if (following && converged() && upstream() != nullptr && now - followed_at_ >= following_check) dirty_ = true;
  // Somebody has started by hand what was to be stopped.
  const bool stray = being_demoted(state_.goal.state) && pg_running_;
  if (converged() && !dirty_ && !crashed() && !stray) {
    work.again = idle;
    return work;
  }
  if (state_.goal.seq == 0) return work;  // nothing was ordered yet
  if (fenced_) {
    if (!has_lease(now) && !being_demoted(state_.goal.state) && state_.goal.state != NodeState::dropped) return work;
    fenced_ = false;
  }
  if (crashed() && crashed_at_ && converged() && takes_writes(state_.reported) && !asynchronous() && last_answer_ &&
      now - *crashed_at_ < failover_first) {
    work.again = failover_first - (now - *crashed_at_);
    return work;
  }
  plan_ = plan(state_.reported, state_.goal.state);
  if (!plan_) {
    failed("there is no way from " + std::string(to_string(state_.reported)) + " to " +
               std::string(to_string(state_.goal.state)),
           now);
    work.again = retry_;
    return work;
  }
  at_ = 0;
  followed_at_ = now;
  plan_seq_ = state_.goal.seq;
  plan_term_ = state_.term;
  plan_goal_ = state_.goal.state;
  dirty_ = false;
  return next(now);
}

void Core::done() {
  if (plan_) ++at_;
}

void Core::failed(std::string reason, Millis now) {
  plan_.reset();
  dirty_ = true;
  retry_ = retry_.count() == 0 ? first_retry : std::min(retry_ * 2, last_retry);
  retry_at_ = now + retry_;
  reason_ = std::move(reason);
}

Core::Save Core::settled(std::optional<Lsn> end_of_wal, Millis) {
  // An order that came meanwhile: what was reached is not what is wanted any more.
  const bool stale = !plan_ || !plan_is_wanted();
  plan_.reset();
  if (!pg_running_) final_lsn_ = end_of_wal;
  if (stale) return Save::no;
  retry_ = retry_at_ = Millis{0};
  reason_.clear();
  if (facts_.timeline > state_.timeline) state_.timeline = facts_.timeline;
  const bool member = takes_writes(state_.goal.state) || runs_as_standby(state_.goal.state);
  if (member && state_.system_identifier.empty()) state_.system_identifier = facts_.system_identifier;
  if (converged()) return Save::no;
  state_.reported = state_.goal.state;
  state_.reported_seq = state_.goal.seq;
  return Save::yes;
}

void Core::refresh_stopped(const std::string& system_identifier, const WalPosition& position) {
  pg_running_ = pg_answering_ = false;
  facts_.streaming = false;
  facts_.system_identifier = system_identifier;
  facts_.timeline = position.timeline;
  facts_.history = position.history;
}

bool Core::could_arm() const {
  return names_set_ && !armed_ && pg_running_ && pg_answering_ && facts_.in_recovery && converged();
}

void Core::wrote_names(const std::string& names) {
  names_set_ = !names.empty();
  if (!names_set_) armed_ = false;
  if (started_with_ != names) started_with_.reset();
}

void Core::starting(std::string names) {
  started_with_ = std::move(names);
  starting_ = true;
}

void Core::started(bool as_standby, bool names_set, Millis now) {
  if (!pg_running_ || crashed_at_) armed_ = names_set;  // not when it was running all the time
  names_set_ = names_set;
  facts_.in_recovery = as_standby;  // until it is seen
  standby_contact_ = now;
  starting_ = false;
  pg_running_ = pg_answering_ = true;
  pg_answered_ = now;
  crashed_at_.reset();
  final_lsn_.reset();
}

Core::Save Core::promoted(Timeline timeline) {
  auto& own = state_.own_timelines;
  if (std::find(own.begin(), own.end(), timeline) != own.end()) return Save::no;
  own.push_back(timeline);
  return Save::yes;
}

Core::Save Core::copy_begins() {
  const bool had_data = state_.reported != NodeState::init && state_.reported != NodeState::wait_standby;
  if (had_data) state_.reported = NodeState::catchingup;
  return Save::yes;
}

Core::Save Core::copied() {
  state_.foreign_promotion = false;
  state_.timeline = Timeline{};
  return Save::yes;
}

std::optional<std::string> Core::no_start(bool as_standby, bool copy_unfinished, Millis now) const {
  if (fenced_) return "fenced: no contact with the monitor";
  if (copy_unfinished) return "PGDATA is an unfinished copy; it is copied again as soon as there is a primary";
  if (as_standby || !takes_writes(state_.goal.state) || state_.goal.state == NodeState::single || has_lease(now)) {
    return std::nullopt;
  }
  // Without the monitor's word only the fence by quorum makes it safe to write; give the monitor a chance to say so
  // first.
  if (!state_.goal.names.asynchronous() && now - began_ >= lease()) return std::nullopt;
  return "waits for the monitor's word before it starts as a primary";
}

std::optional<std::string> Core::no_promotion(const LocalFacts& seen, Millis now) const {
  const Timeline promised = state_.goal.promised_timeline;
  if (seen.in_recovery && promised.value > 0 && seen.timeline >= promised) {
    return "another node was promoted after this order: waits for the monitor's word";
  }
  if (state_.goal.state == NodeState::single || has_lease(now) || !state_.goal.names.asynchronous()) {
    return std::nullopt;
  }
  return "waits for the monitor's word before it is promoted";
}

std::optional<std::string> Core::not_ours(const std::string& system_identifier) const {
  if (state_.system_identifier.empty() || state_.system_identifier == system_identifier) return std::nullopt;
  return "PGDATA is of another system (" + system_identifier + ") than this node was (" + state_.system_identifier +
         "); it is left alone: put the right one back, or drop this node";
}

std::optional<std::string> Core::no_vote() const {
  if (!state_.foreign_promotion) return std::nullopt;
  return "PostgreSQL was promoted here by somebody else: this node has to be copied again and cannot take over";
}

std::optional<std::string> Core::must_fence(Millis now) const {
  if (!pg_running_ || (facts_.in_recovery && !promoting_) || has_lease(now)) return std::nullopt;
  Contact contact;
  // A promotion may have happened and not been reported.
  contact.state = takes_writes(state_.reported) ? state_.reported : state_.goal.state;
  // Or it was given its role back for a moment, or somebody has started PostgreSQL by hand.
  if (being_demoted(state_.goal.state) && !takes_writes(contact.state)) contact.state = NodeState::wait_primary;
  contact.asynchronous = asynchronous();
  contact.monitor_age = now - lease_began_.value_or(began_);
  contact.standby_age = starting_ ? Millis{0} : now - standby_contact_;
  contact.lease = lease();
  // A keeper that was held up (suspended, swapped out) has seen no standby because it has not looked. It looks first:
  // with a synchronous list nobody is in danger meanwhile.
  if (!contact.asynchronous && pg_answering_ && now - pg_answered_ >= answer_limit) return std::nullopt;
  const auto why = keeper::must_fence(contact);
  return why ? std::optional<std::string>(*why) : std::nullopt;
}

void Core::fenced(const std::string& why, Millis now) {
  reason_ = "fenced: " + why;
  if (std::exchange(fenced_, true)) return;  // it has not stopped yet
  asking_pause_ = asking_pause_.count() == 0 ? lease() : std::min(asking_pause_ * 2, longest_asking_pause);
  asks_at_ = now + asking_pause_;
}

bool Core::asks_for_standbys(Millis now) const {
  return fenced_ && !pg_running_ && now >= asks_at_ && converged() && takes_writes(state_.goal.state) &&
         !state_.goal.names.asynchronous();
}

bool Core::found_standby(Timeline timeline, Millis now) {
  if (!asks_for_standbys(now) || timeline > state_.timeline) return false;
  fenced_ = false;
  dirty_ = true;
  retry_at_ = now;
  return true;
}

bool Core::names_are_due() const {
  return takes_writes(state_.reported) && takes_writes(state_.goal.state) && pg_running_ && pg_answering_ &&
         !facts_.in_recovery && names_version_ != state_.goal.names_version &&
         // What is written is what is wanted: an older list could otherwise come into force after it was seen.
         converged() && !dirty_ && !plan_;
}

std::optional<Core::NamesToConfirm> Core::names_to_confirm() const {
  if (!names_are_due()) return std::nullopt;
  const bool stricter = state_.goal.names.required > 1 && state_.goal.names.required > required_;
  return NamesToConfirm{state_.goal.names, state_.goal.names_version, stricter};
}

bool Core::names_differ() const {
  return takes_writes(state_.reported) && converged() && pg_running_ && pg_answering_ && !facts_.in_recovery &&
         facts_.names_in_force != to_guc(state_.goal.names);
}

bool Core::names_confirmed(std::int64_t version) {
  if (state_.goal.names_version != version) return false;
  names_version_ = version;
  required_ = state_.goal.names.required;
  return true;
}

}  // namespace pgvigil::keeper
