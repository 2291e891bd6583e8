#include "monitor/fsm/waits.hpp"

#include <algorithm>
#include <utility>

namespace pgvigil::fsm {

namespace {

constexpr int too_few_secondaries = 503;
constexpr int learning = 603;

bool for_a_person(const Explanation& why) {
  const bool no_primary = why.rule >= 300 && why.rule <= 399;
  return !why.command.empty() && (no_primary || why.rule == too_few_secondaries || why.rule == learning);
}

// What comes after the colon, who is missing and what a keeper says of its progress, changes: it is the same wait.
bool same(const Explanation& left, const Explanation& right) {
  const auto gist = [](const Explanation& why) { return why.waiting_for.substr(0, why.waiting_for.find(": ")); };
  return left.node == right.node && left.rule == right.rule && gist(left) == gist(right);
}

}  // namespace

void Waits::saw(const std::vector<Explanation>& all, Millis now) {
  std::vector<Wait> waits;
  for (const Explanation& why : all) {
    if (!for_a_person(why)) continue;
    const auto known =
        std::find_if(waits_.begin(), waits_.end(), [&](const Wait& wait) { return same(wait.why, why); });
    Wait wait = known == waits_.end() ? Wait{why, now, {}, Millis{0}} : std::move(*known);
    wait.why = why;
    waits.push_back(std::move(wait));
  }
  waits_ = std::move(waits);
}

std::vector<Explanation> Waits::due(Millis now) const {
  std::vector<Explanation> due;
  for (const Wait& wait : waits_) {
    const bool news = wait.told.empty() || (wait.told != wait.why.waiting_for && now - wait.told_at >= repeated);
    if (news && now - wait.since >= lasting) due.push_back(wait.why);
  }
  return due;
}

void Waits::told(const std::vector<Explanation>& waits, Millis now) {
  for (Wait& wait : waits_) {
    if (std::find(waits.begin(), waits.end(), wait.why) == waits.end()) continue;
    wait.told = wait.why.waiting_for;
    wait.told_at = now;
  }
}

}  // namespace pgvigil::fsm
