// Whether the disk that PostgreSQL writes its WAL to answers, and how much room there is. Whoever writes to a disk that
// hangs, hangs with it, and no signal ends that: the question is put by a thread of its own, and nobody waits for it.
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <future>
#include <optional>
#include <string>

#include "common/model/types.hpp"
#include "keeper/actions/room.hpp"

namespace pgvigil::keeper {

// When to ask, and when to give up. Pure: `now` is of any monotonic clock.
class DiskPatience {
 public:
  using Millis = std::chrono::milliseconds;

  // Some times a second. `flushed`: PostgreSQL's own writes, which answer as well; `asked`: a question is open.
  void tick(Lsn flushed, bool asked, Millis now);
  bool at_rest() const { return at_rest_ >= pause; }  // only then is a write of ours needed to know
  // Since the question, or since PostgreSQL has written; without the time in which this process did not run itself.
  Millis silent_for() const { return silent_; }
  bool over() const { return silent_ >= limit; }

  static constexpr Millis pause{1000};
  static constexpr Millis limit{2000};

 private:
  std::optional<Millis> last_;
  Lsn flushed_;
  Millis at_rest_{0};
  Millis silent_{0};
};

class DiskWatch {
 public:
  using Millis = DiskPatience::Millis;

  // Some times a second. `may_write`: PostgreSQL runs there, and it is ours.
  void look(const std::filesystem::path& pgdata, Lsn flushed, bool may_write, Millis now);
  bool hung() const { return patience_.over(); }
  bool full() const { return answer_.data && answer_.data->free < least; }
  const std::optional<Room>& wal() const { return answer_.wal; }  // of pg_wal
  std::string notice() const;                                     // "" when all is well

  void tidy(const std::filesystem::path& pgdata) const;  // PostgreSQL has stopped

  static constexpr std::uintmax_t least = 1u << 20;  // less than that is nothing to PostgreSQL
  // What is written to: in pg_wal, where PostgreSQL and its tools leave foreign names alone.
  static std::filesystem::path file(const std::filesystem::path& pgdata) {
    return pgdata / "pg_wal/pgvigil-disk-check";
  }

 private:
  struct Answer {
    std::optional<Room> data;  // nullopt: not known, PGDATA does not exist yet
    std::optional<Room> wal;
  };
  static Answer ask(const std::filesystem::path& pgdata, bool write);
  void begin(const std::filesystem::path& pgdata, bool write);

  DiskPatience patience_;
  std::optional<std::future<Answer>> question_;
  std::optional<Millis> asked_at_;
  bool wrote_{false};  // the last question did
  std::filesystem::path asked_of_;
  Answer answer_;
};

}  // namespace pgvigil::keeper
