// The operator's WAL archive, as far as a standby reads from it: what restore_command brings back, nobody has to send.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/model/history.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

// restore_command, as the server of this PGDATA reads it; empty when there is none, or the configuration is one that no
// server would start with.
asio::awaitable<std::string> restore_command(const postgres::Instance& instance);

// The command line for one file, to be put at `to` (PostgreSQL's %f, %p, %r, %%). %r is a name before all others:
// commands clean the archive up to it.
std::string filled_in(const std::string& command, const std::string& file, const std::filesystem::path& to);

// The archive has the WAL at `from`, in the file that a walsender of a node at `upstream` would send: it has just come
// from there, and is removed again.
asio::awaitable<bool> in_archive(const postgres::Instance& instance, const WalPosition& upstream, Lsn from,
                                 std::uint64_t segment_size);

// What the archive has is worth waiting for only while PostgreSQL goes on with it.
class ArchivePatience {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::minutes limit{5};
  // `end`: where the WAL that is here ends. False: it has ended there whenever this was asked for longer than the
  // limit. When nobody has asked for two minutes nobody was waiting.
  bool lasts(Lsn end, Clock::time_point now);

 private:
  std::optional<Lsn> end_;
  Clock::time_point since_;
  Clock::time_point asked_;
};

}  // namespace pgvigil::keeper
