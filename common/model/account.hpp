// What a keeper knows of its group: told to a monitor that has lost its memory (restored from a backup, or new).
#pragma once
#include <cstdint>
#include <vector>

#include "common/model/goal.hpp"

namespace pgvigil {

struct Account {
  NodeState reported{NodeState::init};
  NodeState goal{NodeState::init};  // of the last order that it has accepted
  Term term;                        // the highest promised
  std::int64_t seq{0};              // of that order
  // A primary's: the list that it was told to put in force, and whether that is surely done.
  SyncNames names;
  std::int64_t names_version{0};  // the highest that it knows
  bool names_confirmed{false};
  bool copy_unfinished{false};  // PGDATA was overwritten, and has not come up since: what it had is lost
  Timeline timeline;            // the highest that WAL was received or written on
  Timeline promised_timeline;   // the highest that any promotion may have begun, as far as this node was told
  int number_sync_standbys{0};
  int lease_seconds{0};     // of that order: the primary's may be as long; 0: not told (older keepers)
  std::vector<Peer> peers;  // the other members
  std::int64_t peers_version{-1};
  friend bool operator==(const Account&, const Account&) = default;
};

}  // namespace pgvigil
