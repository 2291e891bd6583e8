// How PGDATA is made fit to stream from an upstream (rule S4). Pure: the facts have been gathered before.
#pragma once
#include <optional>
#include <string>

#include "common/model/history.hpp"

namespace pgvigil::keeper {

// Where the local history stands. `exact` is false when WAL may go on past the position, and nobody can tell how far.
struct LocalPosition {
  WalPosition position;
  bool exact{true};
};

struct UpstreamIdentity {
  std::string system_identifier;
  WalPosition position;
};

struct DataDirectory {
  bool empty{false};  // nothing in it
  bool has_cluster{false};
  bool copy_unfinished{false};  // a copy or a rewind was begun here and has not ended
  // It was promoted behind the keeper's back: its timeline's number may be somebody else's.
  bool foreign_promotion{false};
  bool own_wal_whole{true};  // then: everything that it has written since is still in its pg_wal
  std::string system_identifier;
  LocalPosition local;
  // The upstream can send the WAL from the end of what is here on, or from where the histories part.
  bool wal_available{true};
};

enum class Preparation {
  none,         // it can stream as it is
  rewind,       // it has WAL that the upstream's history does not have, or may have
  base_backup,  // there is nothing to start from
  refuse,       // see why
};

struct Prepared {
  Preparation what{Preparation::none};
  std::string why;
};
Prepared choose_preparation(const DataDirectory& directory, const UpstreamIdentity& upstream,
                            const std::string& upstream_name);

}  // namespace pgvigil::keeper
