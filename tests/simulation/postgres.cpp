#include "tests/simulation/postgres.hpp"

#include <algorithm>

namespace pgvigil::simulation {

int Branches::root() {
  const int branch = count();
  all_.push_back({});
  all_.back().system = branch;
  return branch;
}

int Branches::child(int parent, std::uint64_t fork, std::uint32_t number, std::int64_t term) {
  History history = at(parent).history;
  history.push_back({Timeline{at(parent).number}, Lsn{fork}});
  all_.push_back({number, parent, fork, term, fork, at(parent).system, std::move(history)});
  return static_cast<int>(all_.size()) - 1;
}

bool Branches::holds(int into, std::uint64_t up_to, int branch, std::uint64_t lsn) const {
  while (at(branch).parent >= 0 && lsn <= at(branch).fork) branch = at(branch).parent;
  for (int at_branch = into; at_branch >= 0;) {
    if (at_branch == branch) return lsn <= up_to;
    up_to = std::min(up_to, at(at_branch).fork);
    at_branch = at(at_branch).parent;
  }
  return false;
}

std::uint64_t Branches::common(int left, std::uint64_t left_lsn, int right, std::uint64_t right_lsn) const {
  for (int l = left; l >= 0;) {
    std::uint64_t r_lsn = right_lsn;
    for (int r = right; r >= 0;) {
      if (l == r) return std::min(left_lsn, r_lsn);
      r_lsn = std::min(r_lsn, at(r).fork);
      r = at(r).parent;
    }
    left_lsn = std::min(left_lsn, at(l).fork);
    l = at(l).parent;
  }
  return 0;
}

WalPosition Branches::position(int branch, std::uint64_t lsn) const {
  if (branch < 0) return {};
  return {Timeline{at(branch).number}, Lsn{lsn}, at(branch).history};
}

void look_at(const Postgres& pg, const Branches& branches, Time now, keeper::LocalFacts& facts) {
  facts.in_recovery = pg.in_recovery;
  facts.settled = !pg.in_recovery || now >= pg.settles_at;
  facts.has_receiver = pg.in_recovery && pg.receiving_from != 0;
  if (pg.in_recovery) {
    facts.streaming = facts.has_receiver;
  } else {
    facts.streaming = std::any_of(pg.senders.begin(), pg.senders.end(), [](const Sender& s) { return s.attached; });
  }
  const Branch& branch = branches.at(pg.branch);
  facts.timeline = Timeline{branch.number};
  facts.lsn = Lsn{facts.settled ? pg.flushed : pg.checkpoint};
  facts.history = branch.history;
  facts.system_identifier = branches.system_identifier(pg.branch);
}

keeper::LocalFacts facts_of(const Postgres& pg, const Branches& branches, Time now) {
  keeper::LocalFacts facts;
  look_at(pg, branches, now, facts);
  return facts;
}

}  // namespace pgvigil::simulation
