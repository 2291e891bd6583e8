// One stream of random numbers for everything in a history: the same seed, the same history.
#pragma once
#include <cstdint>

namespace pgvigil::simulation {

// splitmix64 (Steele, Lea, Flood 2014): small, fast, and good for any seed.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // [low, high]
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  int index(int count) { return static_cast<int>(next() % static_cast<std::uint64_t>(count)); }
  bool chance(int percent) { return index(100) < percent; }

 private:
  std::uint64_t state_;
};

}  // namespace pgvigil::simulation
