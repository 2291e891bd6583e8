// Writes down when the monitor came to know what of a failover, and when it decided. One for each group; it looks on,
// and no decision asks it. Pure: `now` is an argument, of the same clock as the ages of the snapshots.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/moments/moments.hpp"
#include "monitor/fsm/decide.hpp"

namespace pgvigil::monitor {

// One takeover, from the first sign until the new primary has said that it takes writes.
struct Story {
  Term term;         // of the order to take over
  NodeId successor;  // 0: not known yet
  NodeId former;     // 0: the group had none
  std::string former_name;
  std::vector<moments::Moment> moments;
};

class Recorder {
 public:
  // A fresh picture, with its ages, before it is decided on.
  void saw(const GroupSnapshot& group, Millis now);
  // What was decided on that picture; and then, when it is in force.
  void decided(const GroupSnapshot& group, const fsm::Decision& decision, Millis now);
  void committed(Millis now);

  // Those that have come to an end. To be stored when there is nothing left to decide, and then forgotten.
  const std::vector<Story>& ended() const { return ended_; }
  void stored() { ended_.clear(); }

 private:
  void look_for_signs(const GroupSnapshot& group, Millis now);
  void count_votes(const GroupSnapshot& group, Millis now);
  Story& story(const NodeView* former);
  void stamp_loss(const NodeView& primary, Millis now);

  std::map<std::string, Millis> signs_;  // against the present primary: since when
  std::map<NodeId, Millis> votes_;       // heard in this term
  Term votes_term_;
  Millis last_vote_{0};
  std::optional<Story> story_;
  std::string_view to_commit_;
  std::vector<Story> ended_;
};

}  // namespace pgvigil::monitor
