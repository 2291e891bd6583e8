#include "monitor/moments/recorder.hpp"

#include <algorithm>

#include "monitor/fsm/predicates.hpp"

namespace pgvigil::monitor {

namespace {

// A keeper that says that its PostgreSQL answers may have heard the answer this long ago (keeper/fsm/core.cpp).
constexpr Millis answer_limit{2000};

bool gives(const fsm::Decision& decision, NodeState goal) {
  return std::any_of(decision.goals.begin(), decision.goals.end(),
                     [goal](const fsm::GoalChange& change) { return change.goal == goal; });
}

std::string rule_words(const fsm::Decision& decision) {
  return "rule " + std::to_string(decision.rule) + " " + std::string(decision.rule_name) + ": " + decision.description;
}

// When it surely was well: the monitor's own look at it, or its keeper's.
std::optional<Millis> last_well(const NodeView& node, Millis now) {
  std::optional<Millis> at;
  if (node.probe != ProbeResult::unknown) at = now - node.probe_not_good_for;
  if (node.ever_reported && node.pg_running && node.pg_responding) {
    const Millis answered = now - node.report_age - answer_limit;
    at = at ? std::max(*at, answered) : answered;
  }
  return at;
}

}  // namespace

void Recorder::saw(const GroupSnapshot& group, Millis now) {
  look_for_signs(group, now);
  count_votes(group, now);
  if (!story_) return;
  const NodeView* former = group.find(story_->former);
  if (former != nullptr && moments::find(story_->moments, moments::draining) != nullptr &&
      moments::find(story_->moments, moments::stop_heard) == nullptr && fsm::surely_stopped(*former) &&
      former->lsn.value > 0) {
    moments::stamp(story_->moments, moments::stop_heard, now);
  }
  const NodeView* successor = group.find(story_->successor);
  if (successor == nullptr || !fsm::writing(*successor) || successor->reported_term < story_->term) return;
  moments::stamp(story_->moments, moments::heard, now);
  ended_.push_back(std::move(*story_));
  story_.reset();
}

// The first vote of a node in a term is what cuts it off.
void Recorder::count_votes(const GroupSnapshot& group, Millis now) {
  if (group.term != votes_term_) votes_.clear();
  votes_term_ = group.term;
  for (const NodeView* node : fsm::voters(group)) {
    if (votes_.try_emplace(node->id, now).second) last_vote_ = now;
  }
}

// A sign that has gone again was none.
void Recorder::look_for_signs(const GroupSnapshot& group, Millis now) {
  std::map<std::string, Millis> present;
  const NodeView* primary = fsm::writer(group);
  if (primary != nullptr && fsm::writing(*primary)) {
    if (!primary->session_open) present["its keeper's session is closed"] = now - primary->session_closed_for;
    if (primary->probe != ProbeResult::good && primary->probe != ProbeResult::unknown)
      present["it is " + std::string(to_string(primary->probe)) + " to the monitor"] = now - primary->probe_age;
    if (!primary->pg_running) {
      present["its keeper says that PostgreSQL has ended"] = now;
    } else if (!primary->pg_responding) {
      present["it does not answer its keeper"] = now;
    }
    for (const NodeView& node : group.nodes) {
      if (node.id == primary->id || !runs_as_standby(node.reported) || !fsm::healthy(group, node)) continue;
      if (node.upstream == UpstreamSight::refused || node.upstream == UpstreamSight::silent)
        present["it is " + std::string(to_string(node.upstream)) + " to " + node.name] = now;
      if (node.converged(NodeState::secondary) && !node.streaming) present[node.name + " receives nothing"] = now;
    }
  }
  for (auto& [words, since] : present) {
    if (const auto before = signs_.find(words); before != signs_.end()) since = before->second;
  }
  signs_ = std::move(present);
}

Story& Recorder::story(const NodeView* former) {
  if (!story_) {
    story_.emplace();
    if (former != nullptr) {
      story_->former = former->id;
      story_->former_name = former->name;
    }
  }
  return *story_;
}

// Signs from before it was last well were signs of something else.
void Recorder::stamp_loss(const NodeView& primary, Millis now) {
  const auto well = last_well(primary, now);
  if (well) moments::stamp(story_->moments, moments::last_evidence, *well);
  const std::pair<const std::string, Millis>* first = nullptr;
  for (const auto& sign : signs_) {
    if (well && sign.second < *well) continue;
    if (first == nullptr || sign.second < first->second) first = &sign;
  }
  if (first != nullptr) moments::stamp(story_->moments, moments::suspicion, first->second, first->first);
}

void Recorder::decided(const GroupSnapshot& group, const fsm::Decision& decision, Millis now) {
  to_commit_ = {};
  const NodeView* primary = fsm::writer(group);
  if (primary == nullptr) primary = fsm::leaving_primary(group);
  if (gives(decision, NodeState::draining) || gives(decision, NodeState::prepare_maintenance)) {
    story_.reset();
    story(primary);
    moments::stamp(story_->moments, moments::asked, group.request ? now - group.request->age : now,
                   rule_words(decision));
    to_commit_ = moments::draining;
  } else if (decision.term && gives(decision, NodeState::report_lsn)) {
    // A primary at work belongs to no takeover before: how that one ended was not seen.
    if (primary != nullptr && fsm::writing(*primary)) story_.reset();
    const bool begins = !story_;
    story(primary).successor = NodeId{};
    if (begins && primary != nullptr) stamp_loss(*primary, now);
    moments::stamp(story_->moments, moments::verdict, now, rule_words(decision));
    to_commit_ = moments::votes_asked;
  } else if (decision.heir) {
    Story& told = story(primary);
    // A hand-over raises the term only now.
    if (decision.term) {
      moments::stamp(told.moments, moments::caught_up, now, rule_words(decision));
    } else {
      if (const auto vote = votes_.find(*decision.heir); vote != votes_.end())
        moments::stamp(told.moments, moments::vote_heard, vote->second);
      moments::stamp(told.moments, moments::fenced, last_vote_);
      moments::stamp(told.moments, moments::elected, now, rule_words(decision));
    }
    told.term = decision.term.value_or(group.term);
    told.successor = *decision.heir;
    to_commit_ = moments::ordered;
  } else if (gives(decision, NodeState::stop_replication)) {
    moments::stamp(story(primary).moments, moments::chosen, now, rule_words(decision));
  } else if (gives(decision, NodeState::fast_forward)) {
    moments::stamp(story(primary).moments, moments::fetching, now, rule_words(decision));
  } else if (story_ && story_->successor == NodeId{} && gives(decision, NodeState::wait_primary)) {
    story_.reset();  // the hand-over was given up
  }
}

void Recorder::committed(Millis now) {
  if (story_ && !to_commit_.empty()) moments::stamp(story_->moments, to_commit_, now);
  to_commit_ = {};
}

}  // namespace pgvigil::monitor
