// Writes down, by the keeper's monotonic clock, what a takeover (with the vote before it) or a hand-over consists of
// here. It looks on: nothing is decided by it. Pure: `now` is an argument. Lost with the process.
#pragma once
#include <optional>
#include <vector>

#include "common/model/goal.hpp"
#include "common/moments/moments.hpp"
#include "keeper/fsm/plan.hpp"

namespace pgvigil::keeper {

class Recorder {
 public:
  using Millis = moments::Millis;

  // After each answered report: the order that is now held, and the state that it found.
  void ordered(const Goal& goal, NodeState reported, Millis now);
  void begins(Step step, Millis now);
  void done(Step step, Millis now);
  // The state has been reached.
  void settled(NodeState state, Millis now);
  // A report goes out.
  void reports(NodeState state, std::int64_t goal_seq, Millis now);
  // Promoted here, and nobody has been seen to write yet.
  bool awaits_write() const;
  void wrote(Millis now);

  struct Telling {
    Term term;  // of the order to take over
    std::vector<moments::Moment> moments;
  };
  // What the monitor does not have yet; nullopt when there is nothing.
  std::optional<Telling> telling() const;
  void told(const Telling& telling);  // more may have happened since

 private:
  enum class Part { none, votes, takes_over, hands_over };
  void begin(Part part, const Goal& goal, bool goes_on);
  void note(std::string_view name, Millis now);

  Part part_{Part::none};
  std::int64_t seq_{0};  // of the order that began it
  Term term_;
  bool complete_{false};  // enough for others to see
  std::vector<moments::Moment> moments_;
  std::size_t told_{0};  // of them
};

}  // namespace pgvigil::keeper
