// Which waits become events: those that only a person can end, and that have lasted. For a moment many a failover looks
// as if it needed one, and whoever reads an advice to give up data may follow it. Pure: `now` is an argument.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "monitor/fsm/explain.hpp"

namespace pgvigil::fsm {

class Waits {
 public:
  static constexpr Millis lasting{5000};
  // The same wait for somebody else is told no sooner after the last time.
  static constexpr Millis repeated{60000};

  // What is waited for from now on.
  void saw(const std::vector<Explanation>& all, Millis now);
  // To be told now.
  std::vector<Explanation> due(Millis now) const;
  void told(const std::vector<Explanation>& waits, Millis now);

 private:
  struct Wait {
    Explanation why;
    Millis since{0};
    std::string told;  // its words then; empty: never
    Millis told_at{0};
  };
  std::vector<Wait> waits_;
};

}  // namespace pgvigil::fsm
