// Why the group is not where it should be: for people. Pure, and without figures that change all the time, so that a
// text stands as long as its cause does.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "common/model/group.hpp"

namespace pgvigil::fsm {

struct Explanation {
  std::optional<NodeId> node;  // nullopt: the group as a whole
  int rule{0};                 // the rule that would move it on; 0 when the keeper has its order and carries it out
  std::string waiting_for;     // one sentence
  std::string command;         // what an operator could do; empty when it goes on by itself
  friend bool operator==(const Explanation&, const Explanation&) = default;
};

// One entry for each node that is not where it should be, and one for the group when it has no primary. Empty: all
// well.
std::vector<Explanation> explain(const GroupSnapshot& group);

}  // namespace pgvigil::fsm
