#include "keeper/fsm/prepare.hpp"

namespace pgvigil::keeper {

Prepared choose_preparation(const DataDirectory& directory, const UpstreamIdentity& upstream,
                            const std::string& upstream_name) {
  if (directory.copy_unfinished || (!directory.has_cluster && directory.empty)) {
    return {Preparation::base_backup, "there is no complete copy here"};
  }
  if (!directory.has_cluster) {
    return {Preparation::refuse, "PGDATA is not empty and holds no cluster; it is left alone: empty it"};
  }
  if (directory.system_identifier != upstream.system_identifier) {
    return {Preparation::refuse, "PGDATA is of another system (" + directory.system_identifier + ") than " +
                                     upstream_name + " (" + upstream.system_identifier +
                                     "); it is left alone: drop this node, or empty its PGDATA"};
  }
  const WalPosition& local = directory.local.position;
  const WalPosition& theirs = upstream.position;
  if (directory.foreign_promotion && !directory.own_wal_whole) {
    return {Preparation::refuse,
            "PostgreSQL was promoted here by somebody else and has removed some of the WAL that it wrote since, which "
            "can so not be kept aside; nothing is replaced: save what is wanted of it, then empty its PGDATA"};
  }
  if (directory.foreign_promotion) return {Preparation::base_backup, "PostgreSQL was promoted here by somebody else"};
  if (local.timeline == theirs.timeline && local.history == theirs.history) {
    if (!directory.wal_available) return {Preparation::base_backup, upstream_name + " has removed WAL that is needed"};
    return {Preparation::none, {}};
  }
  const auto fork = switch_point(theirs.history, local.timeline);
  if (!fork && local.timeline > theirs.timeline) {
    return {Preparation::refuse, "this node is on timeline " + std::to_string(local.timeline.value) + ", which " +
                                     upstream_name + " (timeline " + std::to_string(theirs.timeline.value) +
                                     ") does not know; nothing is overwritten: save what is wanted of it, then empty "
                                     "its PGDATA"};
  }
  if (!directory.local.exact) return {Preparation::base_backup, "how far its WAL goes cannot be read"};
  // The same number with other ancestors: pg_rewind would see one timeline and do nothing.
  if (local.timeline == theirs.timeline) return {Preparation::base_backup, "both have a timeline of this number"};
  // Without it a rewound directory would never become consistent.
  if (!directory.wal_available) return {Preparation::base_backup, upstream_name + " has removed WAL that is needed"};
  // A directory that has not parted is never given to pg_rewind: that would finish the recovery of one that has
  // crashed, and so write records of its own where the upstream's history goes on with others.
  // The number alone proves nothing: a promotion that was given up may have reserved the same one.
  if (!contains(theirs, local)) return {Preparation::rewind, "its history has parted from " + upstream_name + "'s"};
  return {Preparation::none, {}};
}

}  // namespace pgvigil::keeper
