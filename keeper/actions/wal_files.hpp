// What lies in pg_wal.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil::keeper {

struct Segment {
  std::filesystem::path path;
  std::uint64_t position{0};  // of its first byte
  std::uint64_t size{0};
};

// The segments of the timeline that reach past `from` and hold its WAL, in order: not those that were recycled, which
// have the name of WAL to come. The server may be running: what goes away meanwhile is left out.
std::vector<Segment> segments_from(const std::filesystem::path& wal, Timeline timeline, Lsn from);

// WAL is here without a gap from `from` up to this place or further: where its last segment begins. The control file
// says only how far it has been replayed.
Lsn received_up_to(const std::filesystem::path& wal, Timeline timeline, Lsn from);
// WAL is here without a gap from `from` up to `to`.
bool whole_between(const std::filesystem::path& wal, Timeline timeline, Lsn from, Lsn to);

}  // namespace pgvigil::keeper
