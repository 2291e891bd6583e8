#include "keeper/moments/recorder.hpp"

namespace pgvigil::keeper {

namespace {

bool hands_over(NodeState goal) {
  return goal == NodeState::draining || goal == NodeState::prepare_maintenance;
}

}  // namespace

// The first time counts: steps are run again after a failure.
void Recorder::note(std::string_view name, Millis now) {
  if (moments::find(moments_, name) == nullptr) moments::stamp(moments_, name, now);
}

void Recorder::begin(Part part, const Goal& goal, bool goes_on) {
  if (!goes_on) moments_.clear();
  part_ = part;
  seq_ = goal.seq;
  term_ = goal.term;
  complete_ = false;
  told_ = 0;
}

void Recorder::ordered(const Goal& goal, NodeState reported, Millis now) {
  if (part_ == Part::hands_over && !complete_ && goal.seq != seq_) {
    // Another node has been ordered to take over, and this is told under that order's term; or it was given up.
    complete_ = goal.term > term_ && !takes_writes(goal.state) && moments::find(moments_, moments::stopped);
    term_ = goal.term;
    if (!complete_) part_ = Part::none;
  }
  if (part_ != Part::none && goal.seq == seq_) return;
  if (takes_writes(goal.state) && runs_as_standby(reported)) {
    // The vote that it follows from is a part of it.
    begin(Part::takes_over, goal, part_ == Part::votes && goal.term == term_);
    note(moments::order_received, now);
  } else if (goal.state == NodeState::report_lsn && runs_as_standby(reported)) {
    begin(Part::votes, goal, false);
    note(moments::vote_received, now);
  } else if (hands_over(goal.state) && takes_writes(reported)) {
    begin(Part::hands_over, goal, false);
    note(moments::drain_received, now);
  }
}

void Recorder::begins(Step step, Millis now) {
  if (part_ == Part::takes_over && step == Step::promote) note(moments::promoting, now);
  if (part_ == Part::hands_over && step == Step::stop) note(moments::stopping, now);
}

void Recorder::done(Step step, Millis now) {
  if (part_ == Part::takes_over && step == Step::promote) note(moments::promoted, now);
  if (part_ == Part::hands_over && step == Step::stop) note(moments::stopped, now);
  if (part_ == Part::votes && step == Step::cut_off) note(moments::cut_off, now);
}

void Recorder::settled(NodeState state, Millis now) {
  if (part_ == Part::takes_over && takes_writes(state) && moments::find(moments_, moments::promoted))
    note(moments::settled, now);
}

void Recorder::reports(NodeState state, std::int64_t goal_seq, Millis now) {
  if (part_ == Part::none || goal_seq < seq_ || moments::find(moments_, moments::reported)) return;
  if (part_ == Part::votes && state == NodeState::report_lsn && moments::find(moments_, moments::cut_off))
    note(moments::voted, now);
  if (part_ == Part::hands_over && hands_over(state)) note(moments::reported, now);
  if (part_ == Part::takes_over && takes_writes(state) && moments::find(moments_, moments::settled)) {
    note(moments::reported, now);
    complete_ = true;
  }
}

bool Recorder::awaits_write() const {
  return part_ == Part::takes_over && moments::find(moments_, moments::promoted) &&
         !moments::find(moments_, moments::first_write);
}

void Recorder::wrote(Millis now) {
  if (awaits_write()) note(moments::first_write, now);
}

std::optional<Recorder::Telling> Recorder::telling() const {
  if (!complete_ || told_ == moments_.size()) return std::nullopt;
  return Telling{term_, moments_};
}

void Recorder::told(const Telling& telling) {
  if (telling.term == term_) told_ = telling.moments.size();
}

}  // namespace pgvigil::keeper
