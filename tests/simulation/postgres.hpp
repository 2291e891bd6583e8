// A model of PostgreSQL as far as failover goes: WAL on branches, what is in force only after a reload, commits that
// wait, stops, crashes, recovery, promotion. It has no time of its own: the world moves it.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/model/history.hpp"
#include "common/model/sync_names.hpp"
#include "keeper/fsm/core.hpp"

namespace pgvigil::simulation {

using Time = std::int64_t;            // milliseconds
inline constexpr int max_nodes = 10;  // indexes 1..; 0 is the monitor

// A physical timeline. Two promotions give two branches, also when PostgreSQL gives both the same number.
struct Branch {
  std::uint32_t number{1};
  int parent{-1};
  std::uint64_t fork{0};  // where it leaves the parent
  std::int64_t term{0};   // of the promotion that began it
  std::uint64_t tip{0};   // the last record written on it
  int system{0};          // of one initdb
  History history;
};

class Branches {
 public:
  int root();
  int count() const { return static_cast<int>(all_.size()); }
  std::string system_identifier(int branch) const { return std::to_string(7 + at(branch).system); }
  int child(int parent, std::uint64_t fork, std::uint32_t number, std::int64_t term);
  const Branch& at(int branch) const { return all_[static_cast<std::size_t>(branch)]; }
  Branch& at(int branch) { return all_[static_cast<std::size_t>(branch)]; }
  // The record (branch, lsn) is part of what leads to (into, up_to).
  bool holds(int into, std::uint64_t up_to, int branch, std::uint64_t lsn) const;
  // The last common record of two positions.
  std::uint64_t common(int left, std::uint64_t left_lsn, int right, std::uint64_t right_lsn) const;
  WalPosition position(int branch, std::uint64_t lsn) const;

 private:
  std::vector<Branch> all_;
};

struct Commit {
  std::uint64_t lsn{0};
  Time at{0};
};

struct Sender {  // a walsender's view of one standby
  bool attached{false};
  int session{0};
  std::uint64_t flush{0};
  Time heard{0};
  Time since{0};
};

struct Postgres {
  // --- disk
  bool exists{false};
  bool copy_unfinished{false};
  bool standby_signal{false};
  bool clean{false};  // shut down cleanly
  int branch{-1};
  std::uint64_t flushed{0};     // end of the WAL on disk
  std::uint64_t checkpoint{0};  // where recovery begins
  std::uint64_t consistent{0};  // not usable before it has replayed up to here (after a rewind)
  int consistent_branch{-1};
  int checkpoint_branch{-1};
  SyncNames names_on_disk;
  int upstream_on_disk{0};  // node index; 0: none
  // --- process
  bool running{false};
  bool accepting{false};
  bool in_recovery{false};
  bool stopping{false};
  int life{0};  // grows with every start and end: stale events are told apart
  Time paused_until{0};
  Time settles_at{0};  // a standby has then read all of its WAL
  SyncNames names;     // by which commits are counted
  Time names_since{0};
  bool waits{false};  // the checkpointer has told the backends to wait at all
  int upstream{0};    // primary_conninfo in force
  int receiving_from{0};
  int receiver_session{0};
  Time received_at{0};
  bool delivering{false};  // WAL is on its way to this standby
  Time receiver_at{0};     // the next attempt to connect
  Time stop_begun{0};
  std::array<Sender, max_nodes> senders{};
  std::vector<Commit> waiting;

  bool answers(Time now) const { return running && accepting && now >= paused_until; }
  bool writable(Time now) const { return answers(now) && !in_recovery && !stopping; }
};

keeper::LocalFacts facts_of(const Postgres& pg, const Branches& branches, Time now);
// The same into `facts`, whose memory is used again.
void look_at(const Postgres& pg, const Branches& branches, Time now, keeper::LocalFacts& facts);

}  // namespace pgvigil::simulation
