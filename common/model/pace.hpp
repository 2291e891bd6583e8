// How often a server is asked whether it is well, and how long one answer may take: by how often keepers are to report,
// so that a formation whose failures shall be noticed sooner is not held up by its probes.
#pragma once
#include <algorithm>
#include <chrono>

namespace pgvigil {

struct Pace {
  std::chrono::milliseconds period{1000};
  // For one answer. A session that gives none is followed by a new one, which is given as long.
  std::chrono::milliseconds patience{1000};
  friend bool operator==(const Pace&, const Pace&) = default;
};

inline Pace pace_of(std::chrono::milliseconds heartbeat) {
  using std::chrono::milliseconds;
  const milliseconds least{200};
  const milliseconds most{1000};
  return {std::clamp(heartbeat, least, most), std::clamp(heartbeat * 4 / 3, least, most)};
}

}  // namespace pgvigil
