// What lies in pg_wal.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/model/history.hpp"

namespace pgvigil::keeper {

// Where the segment of this name begins; nullopt: it is no segment's. `size`: of a segment, in bytes.
std::optional<Lsn> segment_begins(const std::string& name, std::uint64_t size);

struct Segment {
  std::filesystem::path path;
  Timeline timeline;
  std::uint64_t position{0};  // of its first byte
  std::uint64_t size{0};
};

// The segments, in the order of their positions and timelines: not those that were recycled, which have the name of WAL
// to come. The server may be running: what goes away meanwhile is left out.
std::vector<Segment> segments_in(const std::filesystem::path& wal);
// Those of the timeline that reach past `from`.
std::vector<Segment> segments_from(const std::filesystem::path& wal, Timeline timeline, Lsn from);
// Those of the position's timeline, and of its ancestors as far as they lead to it, that reach past `from`.
std::vector<Segment> segments_along(const std::filesystem::path& wal, const WalPosition& position, Lsn from);

// WAL is here without a gap from `from` up to this place or further: where its last segment begins. The control file
// says only how far it has been replayed.
Lsn received_up_to(const std::filesystem::path& wal, Timeline timeline, Lsn from);
// WAL is here without a gap from `from` up to `to`.
bool whole_between(const std::filesystem::path& wal, Timeline timeline, Lsn from, Lsn to);
// The same as received_up_to() for a recovery that begins at `from` and follows the history of `along` from one
// timeline to the next.
Lsn recovered_up_to(const std::filesystem::path& wal, const WalPosition& along, Lsn from);

// The ancestors of a timeline; nullopt when its history file is not there. Timeline 1 has none. Throws pgvigil::Error
// when it is no history.
std::optional<History> read_history(const std::filesystem::path& wal, Timeline timeline);

// The history files of timelines later than the local one that are not the upstream's or its ancestors'. A standby that
// has found one goes over to that timeline, and from then on follows only what goes on from it.
std::vector<std::filesystem::path> stray_histories(const std::filesystem::path& wal, Timeline local,
                                                   const WalPosition& upstream);

struct WalSizes {
  std::uint64_t segment{0};  // in bytes
  std::uint64_t page{0};
};
// The timeline on which the last of the WAL up to `known` was received or written: the latest whose history goes on
// from the known one's and of which the page before that place is here. nullopt: no later one than is known. A history
// alone says nothing: it is fetched from nodes that turn out not to fit, and made to reserve a number.
std::optional<WalPosition> received_on(const std::filesystem::path& wal, const WalPosition& known, WalSizes sizes);

// Into which file a walsender looks for the WAL at `from`: that of the timeline on which it lies, but in the segment in
// which this ends that of the next one (walsender.c, WalSndSegmentOpen()). What lies in files of other timelines is
// "removed" for it, and asked for again and again by the standby.
std::string file_sent(const WalPosition& upstream, Lsn from, std::uint64_t segment_size);

}  // namespace pgvigil::keeper
