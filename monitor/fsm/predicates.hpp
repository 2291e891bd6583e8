// The words that the rules are written in. Each is a question about one snapshot.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "common/model/group.hpp"

namespace pgvigil::fsm {

using Nodes = std::vector<const NodeView*>;

// The node whose goal takes writes; there is at most one. nullptr during an election or a hand-over.
const NodeView* writer(const GroupSnapshot& group);
// It has reported that it takes writes, for its present goal or one that differs only among the writing states.
bool writing(const NodeView& node);

// An operator accepts the loss of data, and has not been answered yet.
bool forced(const GroupSnapshot& group);

bool fresh(const GroupSnapshot& group, const NodeView& node);
// The keeper reports, and its PostgreSQL runs and answers it.
bool healthy(const GroupSnapshot& group, const NodeView& node);
// Its PostgreSQL is surely gone, or has been silent to everybody for too long. Neither healthy nor dead is possible:
// then nothing is decided yet. The reason, for the event, when it is dead.
std::optional<std::string> dead(const GroupSnapshot& group, const NodeView& node);
// It was chosen to take over, and has stopped or fallen silent before it said that it has.
std::optional<std::string> never_came(const GroupSnapshot& group, const NodeView& node);
// It runs and answers, but its disk is full or hangs, and another node that could take over has a better one. The
// reason when it is so.
std::optional<std::string> out_of_space(const GroupSnapshot& group, const NodeView& node);
// A standby that its primary need not wait for any longer. The reason when it is.
std::optional<std::string> standby_lost(const GroupSnapshot& group, const NodeView& node);
// The primary was heard after the standby was lost, and not only before: if it went first, or with it, or if it is the
// monitor that hears nobody, the standby is what the group goes on with, and keeps its place in the names.
bool heard_since(const GroupSnapshot& group, const NodeView& primary, const NodeView& standby);

// A standby whose WAL counts in an election, once it has cut itself off.
bool can_vote(const GroupSnapshot& group, const NodeView& node);
// Its timeline was begun by a promotion that the monitor has ordered, not by somebody behind its back.
bool known_history(const GroupSnapshot& group, const NodeView& node);
// Has cut itself off for the present term and has told its last LSN.
bool has_voted(const GroupSnapshot& group, const NodeView& node);
Nodes voters(const GroupSnapshot& group);
Nodes able_voters(const GroupSnapshot& group);
// A former primary that has stopped, and said so: it can be started as a standby, and vote.
bool stopped_with_wal(const GroupSnapshot& group, const NodeView& node);
// It was to follow a primary that has gone. When it has begun to be copied over it will not start, and not vote.
bool orphaned(const GroupSnapshot& group, const NodeView& node);
// A primary, or a node that may have been promoted and has not come to say so, that was to follow another: a monitor
// without memory knew nothing of it then. It stops, and votes.
bool unheard_primary(const GroupSnapshot& group, const NodeView& node);
// One of these: after it has stopped, or has been started for it.
bool can_vote_later(const GroupSnapshot& group, const NodeView& node);
// Who can vote now or later.
Nodes possible_voters(const GroupSnapshot& group);
// Its keeper has not been heard for too long; a monitor process that has just begun gives everybody that time.
bool gone(const GroupSnapshot& group, const NodeView& node);
// The first node with this goal; nullptr when there is none.
const NodeView* with_goal(const GroupSnapshot& group, NodeState goal);
// The node that is giving the primary role away in a planned hand-over (also by leaving the formation).
const NodeView* leaving_primary(const GroupSnapshot& group);

// It has no WAL yet, or is being copied over: what it has counts for nothing.
bool without_wal(NodeState reported);
// The lists that an election must satisfy; never empty (no list on record counts as asynchronous).
std::vector<NamesInForce> obligations(const GroupSnapshot& group);
// The votes of `nodes` satisfy the list, whatever else is known of its owner.
bool fenced_by(const NamesInForce& entry, const Nodes& nodes);
// Rules S1 and S2: with `votes` cut off, the owner of the list can acknowledge nothing any more, and the most advanced
// vote holds everything that it ever acknowledged. See monitor/fsm/README.md.
bool fence_holds(const GroupSnapshot& group, const NamesInForce& entry, const Nodes& votes);
// Before anybody has been asked: would they hold if all of `votes` voted?
bool all_fences_hold(const GroupSnapshot& group, const Nodes& votes);
// Former primaries that may still hold a lease, and take writes, while `candidate` has been chosen without them. 0: it
// is not known who.
std::vector<NodeId> lease_holders(const GroupSnapshot& group, const NodeView& candidate);

// The node has stopped its PostgreSQL and said so for its present goal; its LSN is the end of its WAL.
bool surely_stopped(const NodeView& node);
// More advanced: by timeline, then by LSN. Every promotion has a timeline number of its own (Goal::promised_timeline),
// and the election before it has found every acknowledged commit, so the later timeline holds them all.
bool ahead(const NodeView& left, const NodeView& right);
// Bytes of WAL that are lost for ever when `chosen` takes over although `known` is what others have told.
std::uint64_t given_up(const NodeView& chosen, const NodeView& known);

// Who would take over in a planned hand-over: healthy converged secondary that streams, by priority, then LSN, then id.
const NodeView* switchover_candidate(const GroupSnapshot& group, const NodeView& primary);

struct Choice {
  const NodeView* candidate{nullptr};
  const NodeView* source{nullptr};  // holds WAL that the candidate has to fetch first; nullptr when it has everything
};
// Of the votes: healthy, by priority (0 never), then the most advanced, then id; or the one that an operator has named.
// Who lacks much is passed over for one that has everything. nullopt when nobody may be chosen, or when what is missing
// cannot be fetched from anybody.
std::optional<Choice> elected(const GroupSnapshot& group, const Nodes& votes, std::optional<NodeId> named);
// Of those that lack nothing; nullptr when there is none.
const NodeView* best_with_everything(const GroupSnapshot& group, const Nodes& votes);
// The most advanced vote; nullptr when there is none.
const NodeView* most_advanced(const Nodes& votes);

// The names the primary should have in force now; nullopt: leave them as they are.
std::optional<SyncNames> desired_names(const GroupSnapshot& group, const NodeView& primary);
// The node stands in a list that may be in force.
bool in_any_list(const GroupSnapshot& group, NodeId node);
// The names for a node about to be promoted, with these other survivors.
SyncNames names_for_promotion(const GroupSnapshot& group, const NodeView& candidate, const Nodes& survivors);

std::string list_names(const Nodes& nodes);

}  // namespace pgvigil::fsm
