#include "monitor/fsm/predicates.hpp"

#include <algorithm>
#include <tuple>

namespace pgvigil::fsm {

namespace {

// A node that was chosen may be starting PostgreSQL anew for a moment.
constexpr Millis stop_is_sure{2000};

std::vector<NodeId> ids_of(const Nodes& nodes) {
  std::vector<NodeId> ids;
  for (const NodeView* node : nodes) ids.push_back(node->id);
  return ids;
}

bool contains(const Nodes& nodes, NodeId id) {
  return std::any_of(nodes.begin(), nodes.end(), [id](const NodeView* node) { return node->id == id; });
}

std::string seconds(Millis age) {
  return std::to_string(age.count() / 1000) + "." + std::to_string(age.count() / 100 % 10) + " s";
}

// How old the last word of a keeper may be before it is lost.
Millis silence_limit(const GroupSnapshot& group, const NodeView& node) {
  return std::max(group.timing.unhealthy_after, node.patience);
}

// A connection was refused after the keeper's session had closed: two answers, from two processes of that host, that
// agree. (The attempt is made as soon as the closing is seen: often in the same millisecond.)
bool session_and_server_gone(const NodeView& node) {
  return !node.session_open && node.probe == ProbeResult::refused && node.probe_age <= node.session_closed_for;
}

// Enough for number_sync_standbys would be left beside a new primary.
bool can_commit_without(const GroupSnapshot& group, const NodeView& node) {
  const auto left = std::count_if(group.nodes.begin(), group.nodes.end(), [&](const NodeView& other) {
    return other.id != node.id && other.replication_quorum && runs_as_standby(other.reported) && healthy(group, other);
  });
  return left - 1 >= group.number_sync_standbys;
}

// Healthy standbys still get answers from `node` by their own connections, and enough of them to acknowledge commits by
// one of its lists: what nobody can write to is no primary. Unless nobody could write to another one either: it may
// well have those that are not heard just now.
bool somebody_sees(const GroupSnapshot& group, const NodeView& node) {
  std::vector<NodeId> seeing;
  for (const NodeView& other : group.nodes) {
    if (other.id != node.id && runs_as_standby(other.reported) && fresh(group, other) &&
        other.upstream == UpstreamSight::ok) {
      seeing.push_back(other.id);
    }
  }
  if (seeing.empty()) return false;
  bool listed = false;
  for (const NamesInForce& entry : group.names) {
    if (entry.by != node.id) continue;
    listed = true;
    const auto members = std::count_if(seeing.begin(), seeing.end(), [&](NodeId id) {
      return std::find(entry.names.members.begin(), entry.names.members.end(), id) != entry.names.members.end();
    });
    if (members >= entry.names.required) return true;
  }
  return !listed || !can_commit_without(group, node);
}

}  // namespace

const NodeView* writer(const GroupSnapshot& group) {
  const auto found = std::find_if(group.nodes.begin(), group.nodes.end(),
                                  [](const NodeView& node) { return takes_writes(node.goal); });
  return found == group.nodes.end() ? nullptr : &*found;
}

bool writing(const NodeView& node) {
  return takes_writes(node.goal) && takes_writes(node.reported);
}

bool forced(const GroupSnapshot& group) {
  return group.request && group.request->allow_data_loss && group.request->kind == RequestKind::failover;
}

bool fresh(const GroupSnapshot& group, const NodeView& node) {
  return node.ever_reported && node.report_age < silence_limit(group, node);
}

bool gone(const GroupSnapshot& group, const NodeView& node) {
  return node.report_age >= silence_limit(group, node);
}

bool healthy(const GroupSnapshot& group, const NodeView& node) {
  return fresh(group, node) && node.pg_running && node.pg_responding && !session_and_server_gone(node);
}

std::optional<std::string> dead(const GroupSnapshot& group, const NodeView& node) {
  if (session_and_server_gone(node)) return "its keeper's session is closed and its PostgreSQL refuses connections";
  if (fresh(group, node) && node.session_open && !node.pg_running && takes_writes(node.reported)) {
    return "its keeper reports that PostgreSQL has stopped";
  }
  const bool keeper_lost = gone(group, node);
  const bool hung = fresh(group, node) && node.pg_running && !node.pg_responding;
  const bool silent = node.probe != ProbeResult::good && node.probe != ProbeResult::unknown &&
                      node.probe_not_good_for >= group.timing.unhealthy_after;
  if ((keeper_lost || hung) && silent && !somebody_sees(group, node)) {
    return keeper_lost ? "no report for " + seconds(node.report_age) + " and its PostgreSQL is " +
                             std::string(to_string(node.probe))
                       : "its PostgreSQL answers nobody, neither its keeper nor the monitor";
  }
  return std::nullopt;
}

std::optional<std::string> never_came(const GroupSnapshot& group, const NodeView& node) {
  const bool chosen = node.reported == NodeState::report_lsn || node.reported == NodeState::stop_replication ||
                      node.reported == NodeState::prepare_promotion || node.reported == NodeState::fast_forward;
  if (!chosen || !takes_writes(node.goal)) return std::nullopt;
  if (fresh(group, node) && !node.pg_running && node.goal_age >= stop_is_sure)
    return "its PostgreSQL has stopped before it became the primary";
  if (gone(group, node) && node.goal_age >= group.timing.lease)
    return "no report for " + seconds(node.report_age) + ", and it has not said that it became the primary";
  return std::nullopt;
}

std::optional<std::string> out_of_space(const GroupSnapshot& group, const NodeView& node) {
  if (!fresh(group, node) || !node.disk_full) return std::nullopt;
  const bool other = std::any_of(group.nodes.begin(), group.nodes.end(), [&](const NodeView& view) {
    return view.id != node.id && view.candidate_priority > 0 && !view.disk_full &&
           view.converged(NodeState::secondary) && healthy(group, view);
  });
  if (!other) return std::nullopt;
  return "its disk takes no writes" + (node.reason.empty() ? std::string() : " (" + node.reason + ")");
}

std::optional<std::string> standby_lost(const GroupSnapshot& group, const NodeView& node) {
  if (session_and_server_gone(node)) return "its keeper's session is closed and its PostgreSQL refuses connections";
  const Millis limit = group.timing.standby_lost_after;
  if (node.report_age >= std::max(limit, node.patience)) return "no report for " + seconds(node.report_age);
  if (node.not_streaming_for >= limit) return "it has not been streaming for " + seconds(node.not_streaming_for);
  return std::nullopt;
}

bool heard_since(const GroupSnapshot& group, const NodeView& primary, const NodeView& standby) {
  const Millis limit = group.timing.standby_lost_after;
  if (!primary.session_open) return false;
  // Refused a moment ago: the monitor reaches its host.
  if (session_and_server_gone(standby)) return 2 * primary.report_age <= limit;
  // A silent one says nothing of its streaming. It had been silent for too long already when the primary was heard, and
  // all that time the primary was heard: after a silence of the monitor's own somebody has to be the first to come
  // back. What is a silence: where the primary is always heard late, the monitor's own is no longer than that.
  const Millis silence = std::max({limit, standby.patience, primary.patience});
  if (standby.report_age >= silence)
    return std::min(standby.report_age, primary.heard_for) - primary.report_age >= silence;
  return 2 * primary.report_age <= standby.not_streaming_for;
}

bool can_vote(const GroupSnapshot& group, const NodeView& node) {
  // A node on its way through a rewind or a base backup is not healthy: its PostgreSQL does not run.
  const bool holds_wal = node.reported == NodeState::secondary || node.reported == NodeState::prepare_promotion ||
                         node.reported == NodeState::stop_replication || node.reported == NodeState::report_lsn ||
                         node.reported == NodeState::wait_maintenance || node.reported == NodeState::fast_forward ||
                         node.reported == NodeState::join_secondary || node.reported == NodeState::catchingup ||
                         node.reported == NodeState::maintenance;  // given back by its operator, see `leaving`
  const bool leaving = node.goal == NodeState::dropped || node.goal == NodeState::maintenance;
  return holds_wal && !leaving && healthy(group, node) && known_history(group, node);
}

bool known_history(const GroupSnapshot& group, const NodeView& node) {
  return node.timeline.value > 0 && node.timeline <= group.promised_timeline;
}

bool has_voted(const GroupSnapshot& group, const NodeView& node) {
  // In fast_forward, and on its way there, it streams from another vote only: no WAL of the old primary can arrive that
  // way either.
  const bool fetching = node.goal == NodeState::fast_forward &&
                        (node.reported == NodeState::report_lsn || node.reported == NodeState::fast_forward);
  const bool cut_off = node.converged(NodeState::report_lsn) || node.converged(NodeState::stop_replication) || fetching;
  return cut_off && node.reported_term == group.term &&
         // 0: the monitor's PostgreSQL has crashed and lost what is not durable; the next report tells it again.
         node.lsn.value > 0 && known_history(group, node);
}

Nodes voters(const GroupSnapshot& group) {
  Nodes votes;
  for (const NodeView& node : group.nodes) {
    if (has_voted(group, node)) votes.push_back(&node);
  }
  return votes;
}

Nodes able_voters(const GroupSnapshot& group) {
  Nodes able;
  for (const NodeView& node : group.nodes) {
    if (can_vote(group, node)) able.push_back(&node);
  }
  return able;
}

bool stopped_with_wal(const GroupSnapshot& group, const NodeView& node) {
  return fresh(group, node) && surely_stopped(node) && node.goal != NodeState::dropped;
}

bool orphaned(const GroupSnapshot& group, const NodeView& node) {
  return fresh(group, node) && node.goal == NodeState::catchingup &&
         (being_demoted(node.reported) || node.reported == NodeState::maintenance);
}

bool unheard_primary(const GroupSnapshot& group, const NodeView& node) {
  const bool candidate = node.reported == NodeState::report_lsn || node.reported == NodeState::fast_forward ||
                         node.reported == NodeState::prepare_promotion || node.reported == NodeState::stop_replication;
  return fresh(group, node) && node.goal == NodeState::catchingup &&
         (takes_writes(node.reported) || (candidate && !node.pg_running));
}

bool can_vote_later(const GroupSnapshot& group, const NodeView& node) {
  return stopped_with_wal(group, node) || orphaned(group, node) || unheard_primary(group, node);
}

Nodes possible_voters(const GroupSnapshot& group) {
  Nodes able;
  for (const NodeView& node : group.nodes) {
    if (can_vote(group, node) || can_vote_later(group, node)) able.push_back(&node);
  }
  return able;
}

const NodeView* with_goal(const GroupSnapshot& group, NodeState goal) {
  const auto found =
      std::find_if(group.nodes.begin(), group.nodes.end(), [goal](const NodeView& node) { return node.goal == goal; });
  return found == group.nodes.end() ? nullptr : &*found;
}

const NodeView* leaving_primary(const GroupSnapshot& group) {
  const NodeView* node = with_goal(group, NodeState::draining);
  return node != nullptr ? node : with_goal(group, NodeState::prepare_maintenance);
}

bool without_wal(NodeState reported) {
  return reported == NodeState::init || reported == NodeState::wait_standby || reported == NodeState::catchingup;
}

std::vector<NamesInForce> obligations(const GroupSnapshot& group) {
  std::vector<NamesInForce> lists;
  for (NamesInForce entry : group.names) {
    // A list of all who may hold a commit (learning_rules.cpp): some of them turn out to hold none.
    if (entry.by.value == 0) {
      std::erase_if(entry.names.members, [&](NodeId id) {
        const NodeView* node = group.find(id);
        return node != nullptr && fresh(group, *node) && node->reported_term == group.term &&
               without_wal(node->reported);
      });
      if (entry.names.members.empty()) continue;
    }
    lists.push_back(std::move(entry));
  }
  if (lists.empty()) lists.emplace_back();
  return lists;
}

bool surely_stopped(const NodeView& node) {
  return node.converged() && (being_demoted(node.goal) || node.goal == NodeState::dropped) && !node.pg_running;
}

bool ahead(const NodeView& left, const NodeView& right) {
  const WalPosition ours = left.position();
  const WalPosition theirs = right.position();
  return std::tie(ours.timeline, ours.lsn) > std::tie(theirs.timeline, theirs.lsn);
}

bool fenced_by(const NamesInForce& entry, const Nodes& nodes) {
  // The owner itself has voted: it holds all of its own commits. Or who was chosen after it, with all of them.
  if (contains(nodes, entry.by) || contains(nodes, entry.heir)) return true;
  return fenced(entry.names, ids_of(nodes));
}

bool fence_holds(const GroupSnapshot& group, const NamesInForce& entry, const Nodes& votes) {
  if (votes.empty()) return false;
  if (fenced_by(entry, votes)) return true;
  // The owner has stopped and told where its WAL ends, and somebody has got all of it.
  const NodeView* owner = group.find(entry.by);
  if (owner == nullptr || !surely_stopped(*owner)) return false;
  return owner->lsn.value > 0 && std::any_of(votes.begin(), votes.end(), [&](const NodeView* vote) {
           return contains(vote->position(), owner->position());
         });
}

bool all_fences_hold(const GroupSnapshot& group, const Nodes& votes) {
  const auto lists = obligations(group);
  return std::all_of(lists.begin(), lists.end(),
                     [&](const NamesInForce& entry) { return fence_holds(group, entry, votes); });
}

std::vector<NodeId> lease_holders(const GroupSnapshot& group, const NodeView& candidate) {
  std::vector<NodeId> holders;
  const Millis over = group.timing.lease * 12 / 10;  // margin for clocks that run at different speeds
  for (const auto& entry : obligations(group)) {
    const NodeView* owner = group.find(entry.by);
    if (owner != nullptr && owner->id == candidate.id) continue;
    // It has promised this term, and has stopped writing: only a new order could make it write again. What it last
    // reported need not be all: a promotion may have been carried out and not been told.
    // A stop that it reported before it was told to stop proves nothing: the role may have been given back to it in
    // between.
    const auto stopped = [](const NodeView& node) { return being_demoted(node.reported) && !being_demoted(node.goal); };
    const bool obeys = owner != nullptr && owner->reported_term == group.term && !takes_writes(owner->goal) &&
                       (owner->converged() || stopped(*owner) || without_wal(owner->reported));
    // Nobody has heard of a removed node since before the choice; and what tells a node to stop prolongs no lease.
    Millis silent = owner != nullptr ? owner->report_age : candidate.goal_age;
    if (owner != nullptr && ends_lease(owner->goal)) silent = std::max(silent, owner->goal_age);
    if (!obeys && silent < over) holders.push_back(entry.by);
  }
  return holders;
}

const NodeView* switchover_candidate(const GroupSnapshot& group, const NodeView& primary) {
  const NodeView* best = nullptr;
  for (const NodeView& node : group.nodes) {
    const bool able = node.id != primary.id && node.candidate_priority > 0 && node.converged(NodeState::secondary) &&
                      healthy(group, node) && node.session_open && node.streaming && !node.disk_full &&
                      known_history(group, node);
    if (!able) continue;
    if (best == nullptr || node.candidate_priority > best->candidate_priority ||
        (node.candidate_priority == best->candidate_priority && ahead(node, *best))) {
      best = &node;
    }
  }
  return best;
}

std::uint64_t given_up(const NodeView& chosen, const NodeView& known) {
  if (contains(chosen.position(), known.position())) return 0;
  return known.lsn.value - common_point(chosen.position(), known.position()).value;
}

const NodeView* most_advanced(const Nodes& votes) {
  const NodeView* top = nullptr;
  for (const NodeView* vote : votes) {
    if (top == nullptr || ahead(*vote, *top)) top = vote;
  }
  return top;
}

namespace {

// By disk, by priority (0 never), the most advanced, then id; but who was chosen last, and could not stay, after its
// equals.
const NodeView* best_of(const GroupSnapshot& group, const Nodes& votes) {
  const NodeView* best = nullptr;
  const auto failed = [&](const NodeView& node) { return !group.names.empty() && group.names.back().by == node.id; };
  for (const NodeView* vote : votes) {
    if (vote->candidate_priority == 0) continue;
    if (best != nullptr && !best->disk_full && vote->disk_full) continue;
    if (best != nullptr && best->disk_full && !vote->disk_full) best = nullptr;
    const bool equal = best != nullptr && vote->candidate_priority == best->candidate_priority;
    if (best == nullptr || vote->candidate_priority > best->candidate_priority || (equal && ahead(*vote, *best)) ||
        (equal && !ahead(*best, *vote) && failed(*best))) {
      best = vote;
    }
  }
  return best;
}

// A favourite may have to fetch so much; for more, nobody waits while another one has everything.
constexpr std::uint64_t fetched_in_a_moment = 16u << 20;

// Healthy votes that lack nothing.
Nodes with_everything(const GroupSnapshot& group, const Nodes& votes) {
  const NodeView* top = most_advanced(votes);
  Nodes whole;
  for (const NodeView* vote : votes) {
    if (healthy(group, *vote) && !ahead(*top, *vote)) whole.push_back(vote);
  }
  return whole;
}

}  // namespace

const NodeView* best_with_everything(const GroupSnapshot& group, const Nodes& votes) {
  return best_of(group, with_everything(group, votes));
}

std::optional<Choice> elected(const GroupSnapshot& group, const Nodes& votes, std::optional<NodeId> named) {
  const NodeView* top = most_advanced(votes);
  Nodes able;
  const NodeView* best = nullptr;
  for (const NodeView* vote : votes) {
    if (!healthy(group, *vote)) continue;
    // WAL can be fetched; a history that has parted would have to be rewound, and there is nobody yet to rewind it to.
    if (ahead(*top, *vote) && !contains(top->position(), vote->position())) continue;
    able.push_back(vote);
    if (named && vote->id == *named) best = vote;
  }
  if (best == nullptr) {
    best = best_of(group, able);
    if (best != nullptr && given_up(*best, *top) > fetched_in_a_moment) {
      const NodeView* whole = best_with_everything(group, votes);
      if (whole != nullptr && !whole->disk_full) best = whole;
    }
  }
  if (best == nullptr) return std::nullopt;
  if (!ahead(*top, *best)) return Choice{best, nullptr};
  const Nodes sources = with_everything(group, votes);
  if (sources.empty()) return std::nullopt;
  return Choice{best, sources.front()};
}

bool in_any_list(const GroupSnapshot& group, NodeId node) {
  return std::any_of(group.names.begin(), group.names.end(), [node](const NamesInForce& entry) {
    return std::find(entry.names.members.begin(), entry.names.members.end(), node) != entry.names.members.end();
  });
}

std::optional<SyncNames> desired_names(const GroupSnapshot& group, const NodeView& primary) {
  SyncNames names;
  for (const NodeView& node : group.nodes) {
    const bool counts = node.id != primary.id && node.replication_quorum && node.goal == NodeState::secondary &&
                        node.reported == NodeState::secondary;
    if (counts) names.members.push_back(node.id);
  }
  const int wanted = std::max(1, group.number_sync_standbys);
  if (static_cast<int>(names.members.size()) >= wanted) {
    names.required = wanted;
    return normalized(std::move(names));
  }
  // Durability first: with number_sync_standbys > 0 the primary goes on waiting for the standbys that it has been
  // waiting for.
  if (group.number_sync_standbys > 0) return std::nullopt;
  return SyncNames{};
}

SyncNames names_for_promotion(const GroupSnapshot& group, const NodeView& candidate, const Nodes& survivors) {
  SyncNames names;
  names.required = group.number_sync_standbys;
  if (names.required == 0) return names;  // availability first; the survivors are added as soon as they follow
  const auto add = [&](const NodeView& node) {
    if (node.id != candidate.id && node.replication_quorum && node.goal != NodeState::dropped)
      names.members.push_back(node.id);
  };
  for (const NodeView* node : survivors) add(*node);
  if (static_cast<int>(normalized(names).members.size()) < names.required) {
    for (const NodeView& node : group.nodes) add(node);
  }
  return normalized(std::move(names));
}

std::string list_names(const Nodes& nodes) {
  std::string text;
  for (const NodeView* node : nodes) {
    if (!text.empty()) text += ", ";
    text += node->name;
  }
  return text.empty() ? "none" : text;
}

}  // namespace pgvigil::fsm
