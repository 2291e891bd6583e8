// How much room a file system has, and when that is too little. Pure.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

namespace pgvigil::keeper {

// A file system, in bytes.
struct Room {
  std::uintmax_t free{0};
  std::uintmax_t size{0};

  // Little enough to give up the WAL that a slot holds: some seconds of writing are left, and four segments at least.
  bool runs_out() const {
    return free < std::clamp<std::uintmax_t>(size / 20, std::uintmax_t{64} << 20, std::uintmax_t{16} << 30);
  }
  // Of what is still free, so much that somebody should know.
  bool is_much(std::uintmax_t held) const { return held > free / 5; }
};

// "1.2 GB"
inline std::string in_bytes(std::uintmax_t number) {
  const bool big = number >= (std::uintmax_t{1} << 30);
  const std::uintmax_t tenths = (number >> (big ? 20 : 10)) * 10 / 1024;
  return std::to_string(tenths / 10) + (big ? "." + std::to_string(tenths % 10) + " GB" : " MB");
}

}  // namespace pgvigil::keeper
