// PostgreSQL in time: starts, stops, crashes, reloads, streaming, commits that wait, promotion; and the safety checks
// that hold at each of them.
#include <algorithm>

#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

namespace {

constexpr Time replication_limit = 10000;  // wal_sender_timeout, wal_receiver_timeout
constexpr int session_shift = 40;

}  // namespace

void World::begin_start(int node) {
  Postgres& p = pg(node);
  if (now_ < broken_until_[static_cast<std::size_t>(node)] || (disk_full(node) && !(p.clean && p.standby_signal)))
    return;
  ++p.life;
  p.running = true;
  p.accepting = p.stopping = p.delivering = false;
  p.in_recovery = p.standby_signal;
  p.names = p.names_on_disk;
  p.names_since = now_;
  p.waits = !p.names.asynchronous();
  p.upstream = p.upstream_on_disk;
  p.receiving_from = 0;
  p.senders = {};
  p.waiting.clear();
  const Time recovery = p.clean ? random_.between(20, 80) : random_.between(30, 200 + plan_.slow);
  p.clean = false;
  p.settles_at = now_ + recovery + (p.in_recovery ? random_.between(0, 100 + plan_.slow) : 0);
  at(now_ + recovery, Kind::started, node, 0, p.life);
  if (p.in_recovery) {
    p.receiver_at = p.settles_at + 1;
    at(p.receiver_at, Kind::receiver, node, 0, p.life);
  }
}

void World::started(int node) {
  Postgres& p = pg(node);
  if (p.in_recovery && p.flushed < p.consistent) {
    at(now_ + 100, Kind::started, node, 0, p.life);
    return;
  }
  p.accepting = true;
  if (!p.in_recovery) {
    append(node);  // the checkpoint at the end of recovery
    p.checkpoint = p.flushed;
    p.checkpoint_branch = p.branch;
    at(now_ + random_.between(1, plan_.write_every), Kind::write, node, 0, p.life);
  }
  wake(node);
}

// All sessions end: standbys see it at once, or after their timeout when nothing gets through.
void World::crash(int node) {
  Postgres& p = pg(node);
  if (!p.running) return;
  ++p.life;
  p.running = p.accepting = p.stopping = false;
  p.waiting.clear();
  if (p.receiving_from != 0) detach(node);
  for (int standby = 1; standby <= nodes_; ++standby) {
    if (pg(standby).receiving_from == node) detach(standby);
  }
  wake(node);  // pidfd
}

void World::begin_stop(int node) {
  Postgres& p = pg(node);
  if (!p.running) return;
  if (!p.accepting) {
    crash(node);
    return;
  }
  p.stopping = true;
  p.stop_begun = now_;
  p.waiting.clear();  // the backends are ended: their clients get no acknowledgement
  if (!p.in_recovery) {
    append(node);  // the shutdown checkpoint
    new_wal(node);
  }
  at(now_ + random_.between(5, 60), Kind::stopped, node, 0, p.life);
}

void World::try_stop(int node) {
  Postgres& p = pg(node);
  if (now_ < p.paused_until) {
    at(p.paused_until, Kind::stopped, node, 0, p.life);
    return;
  }
  const bool behind = std::any_of(p.senders.begin(), p.senders.end(),
                                  [&](const Sender& s) { return s.attached && s.flush < p.flushed; });
  if (!p.in_recovery && behind && now_ - p.stop_begun < replication_limit) {
    at(now_ + 10, Kind::stopped, node, 0, p.life);
    return;
  }
  p.clean = true;
  p.checkpoint = p.flushed;
  p.checkpoint_branch = p.branch;
  crash(node);
}

std::uint64_t World::append(int node) {
  Postgres& p = pg(node);
  Branch& branch = branches_.at(p.branch);
  if (branch.tip != p.flushed)
    fail("node " + std::to_string(node) + " writes on a timeline that somebody else goes on with");
  p.flushed = ++branch.tip;
  return p.flushed;
}

// Each process of PostgreSQL reads its configuration when it gets to it.
void World::reload(int node) {
  at(now_ + random_.between(1, 40), Kind::reload, node, 0, pg(node).life);
}

void World::set_in_force(int node) {
  Postgres& p = pg(node);
  if (now_ < p.paused_until) {
    at(p.paused_until, Kind::reload, node, 0, p.life);
    return;
  }
  const bool other_names = p.names != p.names_on_disk;
  p.names = p.names_on_disk;
  if (p.upstream != p.upstream_on_disk) {
    p.upstream = p.upstream_on_disk;
    if (p.receiving_from != 0) detach(node);
  }
  if (p.in_recovery && p.upstream != 0 && p.receiver_at <= now_) {
    p.receiver_at = now_ + 1;
    at(p.receiver_at, Kind::receiver, node, 0, p.life);
  }
  if (other_names) {
    p.names_since = now_;
    if (trace_) note("node " + std::to_string(node) + " has names in force '" + to_guc(p.names) + "'");
    at(now_ + random_.between(1, random_.chance(20) ? 2000 : 50), Kind::checkpointer, node, 0, p.life);
    release(node);
  }
  wake(node);
}

void World::detach(int standby) {
  Postgres& p = pg(standby);
  const int up = p.receiving_from;
  p.receiving_from = 0;
  ++p.receiver_session;
  p.delivering = false;
  if (up != 0) pg(up).senders[static_cast<std::size_t>(standby)].attached = false;
  if (p.running && p.in_recovery && p.receiver_at <= now_) {
    p.receiver_at = now_ + random_.between(50, 200);
    at(p.receiver_at, Kind::receiver, standby, 0, p.life);
  }
}

void World::receiver(int node) {
  Postgres& p = pg(node);
  if (!p.in_recovery || p.upstream == 0 || p.receiving_from != 0 || p.stopping) return;
  if (disk_full(node)) {  // nothing that it could be sent has a place
    p.receiver_at = full_until_[static_cast<std::size_t>(node)] + random_.between(100, 400);
    at(p.receiver_at, Kind::receiver, node, 0, p.life);
    return;
  }
  const int up = p.upstream;
  const Postgres& source = pg(up);
  const bool there =
      up != node && both_ways(node, up) && source.answers(now_) && !source.stopping && now_ >= p.paused_until;
  // After a rewind it goes on by the history that came with the copy, and asks for those timelines only.
  const bool recovers =
      p.flushed >= p.consistent || branches_.holds(source.branch, source.flushed, p.consistent_branch, p.consistent);
  const bool fits = there && recovers && branches_.holds(source.branch, source.flushed, p.branch, p.flushed);
  if (!fits) {
    p.receiver_at = now_ + random_.between(100, 400);
    at(p.receiver_at, Kind::receiver, node, 0, p.life);
    return;
  }
  p.receiving_from = up;
  ++p.receiver_session;
  p.received_at = now_;
  pg(up).senders[static_cast<std::size_t>(node)] = {true, p.receiver_session, p.flushed, now_, now_};
  p.delivering = true;
  at(now_ + latency(), Kind::deliver, node, 0, p.receiver_session);
  wake(node);
}

// Its walreceiver ends where it cannot write.
void World::disk_fills(int node) {
  if (pg(node).receiving_from != 0) detach(node);
  wake(node);
}

void World::new_wal(int node) {
  Postgres& p = pg(node);
  for (int standby = 1; standby <= nodes_; ++standby) {
    if (!p.senders[static_cast<std::size_t>(standby)].attached) continue;
    Postgres& other = pg(standby);
    if (other.delivering) continue;
    other.delivering = true;
    at(now_ + latency(), Kind::deliver, standby, 0, other.receiver_session);
  }
}

void World::deliver(int standby, std::int64_t session) {
  Postgres& p = pg(standby);
  if (p.receiver_session != session || p.receiving_from == 0) return;
  const int up = p.receiving_from;
  const Postgres& source = pg(up);
  const Time clear = std::max(
      {cut_[static_cast<std::size_t>(up)][static_cast<std::size_t>(standby)], p.paused_until, source.paused_until});
  if (clear > now_) {
    if (now_ - p.received_at > replication_limit) {
      detach(standby);
    } else {
      at(std::min(clear + latency(), p.received_at + replication_limit + 1), Kind::deliver, standby, 0, session);
    }
    return;
  }
  p.delivering = false;
  p.received_at = now_;
  const bool more = p.flushed != source.flushed || p.branch != source.branch;
  p.branch = source.branch;
  p.flushed = source.flushed;
  const Time back = std::max(now_, cut_[static_cast<std::size_t>(standby)][static_cast<std::size_t>(up)]) + latency();
  if (back < now_ + replication_limit) {
    at(back, Kind::acknowledge, up, standby, (session << session_shift) | static_cast<std::int64_t>(p.flushed));
  } else {
    detach(standby);
  }
  if (more) new_wal(standby);
}

void World::acknowledge(int primary, int standby, std::int64_t packed) {
  Postgres& p = pg(primary);
  if (!p.running) return;
  Sender& sender = p.senders[static_cast<std::size_t>(standby)];
  if (!sender.attached || sender.session != packed >> session_shift) return;
  if (now_ < p.paused_until) {
    at(p.paused_until, Kind::acknowledge, primary, standby, packed);
    return;
  }
  const auto flush = static_cast<std::uint64_t>(packed & ((std::int64_t{1} << session_shift) - 1));
  sender.flush = std::max(sender.flush, flush);
  sender.heard = now_;
  release(primary);
  // A commit that came while this one was on its way.
  if (p.flushed > sender.flush) new_wal(primary);
}

void World::write(int node) {
  Postgres& p = pg(node);
  if (!p.running || p.in_recovery || p.stopping) return;
  if (now_ < p.paused_until) {
    at(p.paused_until, Kind::write, node, 0, p.life);
    return;
  }
  if (p.waiting.size() < plan_.clients && !disk_full(node)) {  // its clients wait as well
    p.waiting.push_back({append(node), now_});
    new_wal(node);
    release(node);
  }
  at(now_ + random_.between(plan_.write_every / 2, plan_.write_every * 2), Kind::write, node, 0, p.life);
}

// syncrep.c: who waits is released by the walsenders of the names in force; nobody waits when the checkpointer has said
// so.
void World::release(int node) {
  Postgres& p = pg(node);
  if (!p.running || p.in_recovery || now_ < p.paused_until) return;
  std::size_t done = 0;
  for (const Commit& commit : p.waiting) {
    if (p.waits) {
      if (p.names.asynchronous()) break;
      int count = 0;
      for (const NodeId member : p.names.members) {
        const Sender& sender = p.senders[static_cast<std::size_t>(index_of(member))];
        if (sender.attached && sender.flush >= commit.lsn) ++count;
      }
      if (count < p.names.required) break;
    }
    acknowledged(node, commit);
    ++done;
  }
  p.waiting.erase(p.waiting.begin(), p.waiting.begin() + static_cast<std::ptrdiff_t>(done));
}

void World::acknowledged(int node, const Commit& commit) {
  Postgres& p = pg(node);
  const Branch& branch = branches_.at(p.branch);
  const Keeper& k = keeper_of(node);
  ++outcome_.acknowledged;
  last_ack_ = now_;
  // After an operator's forced choice: what the old primary still acknowledges is given up where nothing can stop it.
  // It has its quorum, or nobody guards its lease: no keeper, or one that has just come back to life.
  const bool unguarded = p.waits || !k.alive || now_ < k.paused_until + 1000 || now_ - k.started_at < 15000;
  if (p.branch < first_branch_ || (chosen_by_force_.contains(p.branch) && unguarded)) return;
  if (forgotten_.contains(p.branch) || (removals_forgotten_ && removed_.contains(node))) return;
  if (highest_promotion_ > branch.term) {
    fail("S2: node " + std::to_string(node) + " acknowledges a commit for term " + std::to_string(branch.term) +
         " after a promotion for term " + std::to_string(highest_promotion_));
  }
  // I5: the monitor knows the list under which this was acknowledged.
  const SyncNames names = p.waits ? p.names : SyncNames{};
  const bool known = store_.group.names.empty() || store_.group.learning ||
                     std::any_of(store_.group.names.begin(), store_.group.names.end(), [&](const NamesInForce& entry) {
                       const bool its_own =
                           index_of(entry.by) == node && (entry.names == names || entry.names.asynchronous());
                       return its_own || entry.by.value == 0;  // or: nobody knows, and everybody has to be heard
                     });
  if (!known && store_.group.find(NodeId{node}) != nullptr) {
    fail("I5: node " + std::to_string(node) + " acknowledges a commit under names that the monitor does not know: '" +
         to_guc(names) + "'");
  }
  acked_.resize(std::max(acked_.size(), static_cast<std::size_t>(p.branch) + 1));
  auto& highest = acked_[static_cast<std::size_t>(p.branch)];
  highest = std::max(highest, commit.lsn);
}

void World::promoted(int node) {
  Postgres& p = pg(node);
  const auto term = keeper_of(node).term;
  const std::uint32_t number =
      std::max(branches_.at(p.branch).number + 1, static_cast<std::uint32_t>(keeper_of(node).target));
  ++outcome_.promotions;
  if (trace_) {
    note("node " + std::to_string(node) + " is promoted for term " + std::to_string(term) + " at " +
         std::to_string(p.flushed) + ", timeline " + std::to_string(number));
  }
  // (Of an older system, whose nodes were all removed: what it does is past, as in acknowledged().)
  if (p.branch >= first_branch_ && term >= highest_promotion_) {
    for (auto b = static_cast<std::size_t>(first_branch_); b < acked_.size(); ++b) {
      if (acked_[b] > 0 && !branches_.holds(p.branch, p.flushed, static_cast<int>(b), acked_[b])) {
        fail("S1: node " + std::to_string(node) + " is promoted for term " + std::to_string(term) + " at " +
             std::to_string(p.flushed) + " without an acknowledged commit: record " + std::to_string(acked_[b]) +
             " of term " + std::to_string(branches_.at(static_cast<int>(b)).term));
      }
    }
    if (term == highest_promotion_) fail("I2: a second promotion for term " + std::to_string(term));
    highest_promotion_ = term;
    removed_.erase(node);
  } else if (!p.waits) {
    late_promotion(node, term);
  }
  p.branch = branches_.child(p.branch, p.flushed, number, term);
  // The order was older than an operator's choice, and slept in a paused node.
  if (term < forced_term_) chosen_by_force_.insert(p.branch);
  p.in_recovery = false;
  p.standby_signal = false;
  p.receiver_at = 0;
  if (p.receiving_from != 0) detach(node);
  append(node);  // the end of recovery
  new_wal(node);
  at(now_ + random_.between(1, plan_.write_every), Kind::write, node, 0, p.life);
}

// No fence ends a process that sleeps: an old order may be carried out late. Then nobody may be left whom it needs for
// a commit; alone it could acknowledge some.
void World::late_promotion(int node, std::int64_t term) {
  const int branch = pg(node).branch;
  const bool given_up = removed_.contains(node) || chosen_by_force_.contains(branch) || forgotten_.contains(branch);
  if (branch < first_branch_ || given_up || term < forced_term_) return;
  fail("I3: node " + std::to_string(node) + " is promoted for term " + std::to_string(term) +
       ", and needs nobody for its commits, after a promotion for term " + std::to_string(highest_promotion_));
}

// I7: what is about to be replaced is not the primary, nor the only copy of anything that a client was told to be safe.
void World::destroy_check(int node) {
  const Postgres& p = pg(node);
  if (!p.exists || p.copy_unfinished) return;
  const bool given_up = removed_.contains(node) || chosen_by_force_.contains(p.branch) || forgotten_.contains(p.branch);
  if (!p.standby_signal && p.branch >= first_branch_ && branches_.at(p.branch).term == highest_promotion_ && !given_up)
    fail("I7: node " + std::to_string(node) + " is copied over, and is the one that was promoted last");
  for (auto b = static_cast<std::size_t>(first_branch_); b < acked_.size(); ++b) {
    if (acked_[b] == 0 || !branches_.holds(p.branch, p.flushed, static_cast<int>(b), acked_[b])) continue;
    bool elsewhere = false;
    for (int other = 1; other <= nodes_ && !elsewhere; ++other) {
      const Postgres& q = pg(other);
      elsewhere = other != node && q.exists && !q.copy_unfinished &&
                  branches_.holds(q.branch, q.flushed, static_cast<int>(b), acked_[b]);
    }
    if (!elsewhere)
      fail("I7: node " + std::to_string(node) + " is copied over, and is the only one with an acknowledged commit");
  }
}

}  // namespace pgvigil::simulation
