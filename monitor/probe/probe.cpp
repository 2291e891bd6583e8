#include "monitor/probe/probe.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <optional>
#include <set>
#include <utility>

#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "common/pg/connection.hpp"

namespace pgvigil::monitor {

namespace {

using Clock = std::chrono::steady_clock;
// Between the first questions to two nodes: a thousand connections made at once would all be answered too late.
constexpr pg::Millis stagger{2};

ProbeResult classify(const pg::ConnectionError& error) {
  switch (error.kind) {
    case pg::ConnectionError::Kind::refused: return ProbeResult::refused;
    case pg::ConnectionError::Kind::rejected:
    case pg::ConnectionError::Kind::tls: return ProbeResult::rejected;
    default: return ProbeResult::silent;
  }
}

}  // namespace

struct Probes::Target {
  Target(asio::io_context& context, NodeId id, std::string where)
      : node(id), conninfo(std::move(where)), now(context.get_executor()) {
    state.last_good = Clock::now();
  }
  NodeId node;
  std::string conninfo;
  Pace pace;
  ProbeState state;
  os::Event now;
  bool asked{false};  // probe_now(): the answer is wanted whatever it is
  std::optional<pg::Connection> session;
  bool gone{false};
  Clock::time_point begin_at;
};

Probes::Probes(asio::io_context& context, std::function<void(NodeId)> changed)
    : context_(context), changed_(std::move(changed)) {}
Probes::~Probes() = default;

void Probes::watch(NodeId node, const std::string& conninfo, Pace pace) {
  auto& target = targets_[node];
  if (target && target->conninfo == conninfo) {
    target->pace = pace;
    return;
  }
  if (target) {
    target->gone = true;
    target->now.set();
  }
  target = std::make_shared<Target>(context_, node, conninfo);
  target->pace = pace;
  begin_at_ = std::max(begin_at_ + stagger, Clock::now());
  target->begin_at = begin_at_;
  asio::co_spawn(context_, run(target), asio::detached);
}

void Probes::forget_others(const std::vector<NodeId>& nodes) {
  const std::set<NodeId> kept(nodes.begin(), nodes.end());
  std::erase_if(targets_, [&](auto& entry) {
    if (kept.contains(entry.first)) return false;
    entry.second->gone = true;
    entry.second->now.set();
    return true;
  });
}

void Probes::probe_now(NodeId node) {
  const auto found = targets_.find(node);
  if (found == targets_.end()) return;
  found->second->asked = true;
  found->second->now.set();
}

ProbeState Probes::state(NodeId node) const {
  const auto found = targets_.find(node);
  return found == targets_.end() ? ProbeState{} : found->second->state;
}

void Probes::stop() {
  forget_others({});
}

asio::awaitable<void> Probes::run(std::shared_ptr<Target> target) {
  const auto turn = std::chrono::ceil<pg::Millis>(target->begin_at - Clock::now());
  if (turn.count() > 0) co_await target->now.wait(turn);
  target->state.last_good = Clock::now();
  while (!target->gone) {
    ProbeResult result = ProbeResult::good;
    const bool had_session = target->session.has_value();
    const bool asked = std::exchange(target->asked, false);
    try {
      if (!had_session)
        target->session.emplace(co_await pg::Connection::connect(target->conninfo, target->pace.patience));
      co_await target->session->query("SELECT 1", {}, target->pace.patience);
    } catch (const pg::ConnectionError& error) {
      result = classify(error);
      log::debug("probe of node {}: {}", target->node.value, error.what());
    } catch (const std::exception& error) {
      result = ProbeResult::rejected;
      log::debug("probe of node {}: {}", target->node.value, error.what());
    }
    if (target->gone) break;
    if (result != ProbeResult::good) {
      target->session.reset();
      // A session that broke says little; a new connection at once says whether anybody is there.
      if (had_session) {
        target->asked = target->asked || asked;
        continue;
      }
    }
    const bool news = asked || result != target->state.result;
    target->state.result = result;
    target->state.at = Clock::now();
    if (result == ProbeResult::good) target->state.last_good = target->state.at;
    if (news) changed_(target->node);
    // Bad: ask again soon, without a storm.
    if (target->session) {
      co_await rest(*target);
    } else {
      co_await target->now.wait(std::chrono::milliseconds{200});
    }
  }
}

// Until the next question is due. That the server closes the session is news at once.
asio::awaitable<void> Probes::rest(Target& target) {
  const auto order = [&]() -> asio::awaitable<void> { co_await target.now.wait(target.pace.period); };
  const auto closed = [&]() -> asio::awaitable<void> {
    co_await target.session->wait_notification(target.pace.period);
  };
  bool lost = false;
  try {
    co_await os::race(order(), closed());
  } catch (const pg::ConnectionError&) {
    lost = true;
  }
  if (lost) target.session.reset();
}

}  // namespace pgvigil::monitor
