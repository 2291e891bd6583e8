// Ages: how long ago the monitor process has heard what of whom, by its own monotonic clock. Pure: `now` is an
// argument. They begin at zero with the process; nothing of them is stored.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "common/model/group.hpp"

namespace pgvigil::fsm {

// What is read of every node on every look.
struct Heard {
  NodeId node;
  std::int64_t report_count{0};  // grows with every report; never by a clock. 0: nothing is known of the node
  bool session_open{false};
};

struct ProbeView {
  ProbeResult result{ProbeResult::unknown};
  Millis at{0};         // of the result
  Millis last_good{0};  // or when the probing began
};

class Liveness {
 public:
  struct News {
    std::vector<NodeId> appeared;
    std::vector<NodeId> session_changed;
    std::vector<NodeId> session_closed;
  };
  News look(const std::vector<Heard>& nodes, Millis now);
  // The monitor itself has heard nobody for a while: nobody's silence until now counts.
  void excuse_all(Millis now);
  // The ages of all nodes of the group, and of its request.
  void fill_in(GroupSnapshot& group, Millis now, const std::function<ProbeView(NodeId)>& probe);

 private:
  struct Seen {
    std::int64_t report_count{-1};
    Millis reported_at{0};
    Millis heard_since{0};
    Millis patience{0};  // at the last look
    bool ever_reported{false};
    bool session_open{false};
    Millis session_since{0};
    Millis streaming_at{0};
    std::int64_t goal_seq{-1};
    Millis goal_at{0};
    // Between heartbeats of late, forgotten little by little. The second longest: one pause is not a habit.
    Millis longest_gap{0};
    Millis usual_gap{0};
    Millis unhealthy_after{0};  // as set when the gaps were seen
    // With tighter timings a node goes on by its old heartbeat until it has heard of them: by its second report.
    Millis former_patience{0};
    int reports_until_then{0};
    bool probed_well{false};  // by this process
    Millis stopped_at{0};     // it was last known to be stopped as ordered: no silence to hold against it
    std::int64_t look{0};     // the last one that it was in
  };
  // Gaps of this long ago count for nothing any more.
  static constexpr Millis memory{20000};
  static void learn_gap(Seen& node, Millis gap);

  std::map<NodeId, Seen> seen_;
  std::int64_t looks_{0};
  std::map<std::int64_t, Millis> requests_;  // first seen
};

}  // namespace pgvigil::fsm
