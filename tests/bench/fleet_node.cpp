#include "tests/bench/fleet_node.hpp"

namespace pgvigil::bench {

namespace {

constexpr std::uint64_t written_between_reports = 4096;
constexpr std::chrono::milliseconds crash_recovery{100};

std::string address_of(int index) {
  return "127." + std::to_string(1 + index / 62500) + "." + std::to_string(index / 250 % 250) + "." +
         std::to_string(index % 250 + 1);
}

}  // namespace

Node::Node(asio::io_context& context, Group& group, int index, std::uint16_t port)
    : group_(group), address_(address_of(index)), postgres_(context, address_, port), id_{index + 1} {
  const bool first = index % 2 == 0;
  group.nodes[first ? 0 : 1] = this;
  timeline_ = group.timeline;
  lsn_ = group.lsn;
  goal_.state = first ? NodeState::primary : NodeState::secondary;
  goal_.term.value = goal_.seq = 1;
  goal_.names_version = first ? 1 : 0;
  goal_.promised_timeline = timeline_;
  reach();
}

bool Node::streams() const {
  const bool follows = runs_as_standby(state_) && state_ != NodeState::report_lsn;
  return running_ && follows && other().running_ && takes_writes(other().state_);
}

Report Node::report() {
  if (reached_seq_ != goal_.seq && Clock::now() >= reach_at_) reach();
  if (running_ && takes_writes(state_)) {
    group_.lsn.value += written_between_reports;
    lsn_ = group_.lsn;
    timeline_ = group_.timeline;
    history_ = group_.history;
  } else if (streams()) {
    lsn_ = group_.lsn;
    timeline_ = group_.timeline;
    history_ = group_.history;
  }
  Report report;
  report.node = id_;
  report.state = state_;
  report.term = goal_.term;
  report.goal_seq = reached_seq_;
  report.pg_running = report.pg_responding = running_;
  report.timeline = timeline_;
  report.lsn = lsn_;
  report.names_version = goal_.names_version;
  report.history = history_;
  report.streaming = streams() || (running_ && takes_writes(state_) && other().streams());
  if (running_ && runs_as_standby(state_)) {
    report.upstream = other().running_ ? UpstreamSight::ok : UpstreamSight::refused;
  }
  if (timeline_.value > 0) report.system_identifier = std::to_string(7'000'000'000'000'000'000 + group_.number);
  return report;
}

bool Node::follow(const Goal& goal) {
  const bool moved = goal.state != goal_.state || goal.seq != goal_.seq || goal.term != goal_.term;
  const bool news = moved || goal.names_version != goal_.names_version;
  if (moved) ordered_at_ = Clock::now();
  const bool starts = !running_ && runs_as_standby(goal.state) && timeline_.value > 0;
  goal_ = goal;
  if (!moved) return news;
  // A server that has crashed takes longer to start than the others need to elect one of them.
  reach_at_ = starts ? Clock::now() + crash_recovery : Clock::time_point{};
  if (!starts) reach();
  return true;
}

void Node::reach() {
  if (takes_writes(goal_.state)) {
    if (runs_as_standby(state_)) {  // a promotion
      group_.history.push_back({group_.timeline, lsn_});
      group_.timeline = goal_.promised_timeline;
    }
    running_ = true;
    postgres_.open();
  } else if (runs_as_standby(goal_.state) && goal_.state != NodeState::wait_standby) {
    running_ = true;
    postgres_.open();
  } else {
    running_ = false;
    postgres_.close();
  }
  state_ = goal_.state;
  reached_seq_ = goal_.seq;
}

void Node::postgres_dies() {
  running_ = false;
  postgres_.close();
}

}  // namespace pgvigil::bench
