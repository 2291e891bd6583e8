#include "tests/simulation/store.hpp"

#include <algorithm>
#include <tuple>

namespace pgvigil::simulation {

namespace {

NodeView newcomer(NodeId id, int priority, bool quorum) {
  NodeView node;
  node.id = id;
  node.name = "n" + std::to_string(id.value);
  node.candidate_priority = priority;
  node.replication_quorum = quorum;
  node.goal = NodeState::wait_standby;
  return node;
}

}  // namespace

NodeView* Store::find(NodeId id) {
  const auto found =
      std::find_if(group.nodes.begin(), group.nodes.end(), [id](const NodeView& node) { return node.id == id; });
  return found == group.nodes.end() ? nullptr : &*found;
}

Store::Reported Store::report(const Report& report) {
  Reported result;
  NodeView* node = find(report.node);
  if (node == nullptr) {
    result.answer = Answer::tell;
    if (!removed.contains(report.node.value)) return result;
    result.answer = Answer::goal;
    result.goal.state = NodeState::dropped;
    result.goal.term = report.term;
    result.goal.seq = report.goal_seq + 1000000000000;
    result.goal.lease_seconds = static_cast<int>(group.timing.lease.count() / 1000);
    return result;
  }
  const bool newer =
      report.term > group.term || report.goal_seq > node->goal_seq || report.names_version > group.names_version;
  if (group.learning) {
    result.answer = node->account ? Answer::wait : Answer::tell;
    const bool believed = !foreign(report.system_identifier) || report.state == NodeState::dropped;
    if (node->account && believed) store_facts(*node, report);
    return result;
  }
  if (newer) {
    result.answer = Answer::tell;
    return result;
  }
  // Not even heard.
  if (foreign(report.system_identifier) && report.state != NodeState::dropped) {
    result.answer = node->goal == NodeState::dropped ? Answer::goal : Answer::wait;
    if (result.answer == Answer::goal) result.goal = goal_of(*node);
    return result;
  }
  result.answer = Answer::goal;
  if (std::tie(report.term, report.goal_seq) < std::tie(node->reported_term, node->reported_seq)) {
    result.goal = goal_of(*node);
    return result;
  }
  if (system.empty()) system = report.system_identifier;
  const bool durable = report.state != node->reported || report.term != node->reported_term ||
                       report.goal_seq != node->reported_seq || report.names_version != node->names_version;
  const bool quiet = (node->goal == NodeState::single || node->goal == NodeState::wait_primary ||
                      node->goal == NodeState::primary || node->goal == NodeState::secondary) &&
                     node->goal == report.state;
  result.news = durable || report.pg_running != node->pg_running || report.pg_responding != node->pg_responding ||
                report.timeline != node->timeline || report.upstream != node->upstream ||
                report.streaming != node->streaming || report.disk_full != node->disk_full ||
                (report.lsn != node->lsn && !quiet);
  node->reported = report.state;
  node->reported_term = report.term;
  node->reported_seq = report.goal_seq;
  node->names_version = report.names_version;
  store_facts(*node, report);
  result.goal = goal_of(*node);
  return result;
}

void Store::store_facts(NodeView& node, const Report& report) {
  node.pg_running = report.pg_running;
  node.pg_responding = report.pg_responding;
  node.timeline = report.timeline;
  node.lsn = report.lsn;
  node.history = report.history;
  node.upstream = report.upstream;
  node.streaming = report.streaming;
  node.disk_full = report.disk_full;
  if (node.reason != report.reason) node.reason = report.reason;
  count_report(report.node);
}

bool Store::foreign(const std::string& its_system) const {
  return !system.empty() && !its_system.empty() && system != its_system;
}

void Store::count_report(NodeId id) {
  const auto count =
      std::find_if(report_counts_.begin(), report_counts_.end(), [id](const auto& entry) { return entry.first == id; });
  if (count == report_counts_.end()) {
    report_counts_.emplace_back(id, 1);
  } else {
    ++count->second;
  }
}

Store::Reported Store::tell(NodeId id, int priority, bool quorum, const std::string& its_system,
                            const Account& account) {
  Reported result;
  result.answer = Answer::wait;
  result.news = true;
  if (removed.contains(id.value)) return result;
  if (foreign(its_system)) {
    result.answer = Answer::refused;
    return result;
  }
  const NodeView* known = find(id);
  const bool newer = known == nullptr || account.term > group.term || account.seq > known->goal_seq ||
                     account.names_version > group.names_version;
  if (!group.learning && !newer) return result;
  if (!group.learning && known == nullptr && brings_nothing(account)) {
    enroll(id, priority, quorum, account);
    return result;
  }
  if (!group.learning) lose_memory();
  if (system.empty()) system = its_system;
  if (group.nodes.empty()) group.number_sync_standbys = account.number_sync_standbys;
  if (known == nullptr) group.nodes.push_back(newcomer(id, priority, quorum));
  if (account.peers_version > peers_version) {
    for (const Peer& peer : account.peers) {
      if (find(peer.id) != nullptr || removed.contains(peer.id.value)) continue;
      group.nodes.push_back(newcomer(peer.id, 50, true));
    }
    peers_version = account.peers_version;
  }
  sort_nodes();
  NodeView& node = *find(id);
  if (node.goal_seq == 0) {  // not on record but as a peer of others
    node.candidate_priority = priority;
    node.replication_quorum = quorum;
  }
  node.account = account;
  node.reported = account.reported;
  group.timing.lease = std::max(group.timing.lease, Millis{1000 * account.lease_seconds});
  group.peers_version = peers_version;
  return result;
}

bool Store::brings_nothing(const Account& account) const {
  const bool without_data = (account.reported == NodeState::init || account.reported == NodeState::wait_standby) &&
                            (account.goal == NodeState::init || account.goal == NodeState::wait_standby ||
                             account.goal == NodeState::catchingup);
  const bool newer =
      account.term > group.term || account.names_version > group.names_version || account.peers_version > peers_version;
  return !group.nodes.empty() && without_data && !newer &&
         std::all_of(account.peers.begin(), account.peers.end(), [&](const Peer& peer) {
           return removed.contains(peer.id.value) || group.find(peer.id) != nullptr;
         });
}

void Store::enroll(NodeId id, int priority, bool quorum, const Account& account) {
  NodeView node = newcomer(id, priority, quorum);
  node.goal_seq = account.seq + 100;
  node.reported = account.reported;
  group.nodes.push_back(node);
  sort_nodes();
  ++peers_version;
}

void Store::sort_nodes() {
  std::sort(group.nodes.begin(), group.nodes.end(),
            [](const NodeView& left, const NodeView& right) { return left.id < right.id; });
}

void Store::lose_memory() {
  group.learning = true;
  group.peers_version = peers_version;
  // Who was removed by force, and waited for: still.
  std::vector<NamesInForce> removed_before;
  const auto wait_for = [&](NodeId id) {
    if (id.value != 0 && find(id) == nullptr) add_names(removed_before, {SyncNames{1, {id}}, NodeId{0}});
  };
  for (const NamesInForce& entry : group.names) {
    wait_for(entry.by);
    for (const NodeId member : entry.names.members) {
      if (entry.by.value == 0) wait_for(member);
    }
  }
  group.names = removed_before;
  group.request.reset();
  for (NodeView& node : group.nodes) node.account.reset();
  Store::forget_reports();
}

void Store::restore(const Store& then) {
  *this = then;
  lose_memory();
}

std::int64_t Store::reports_of(NodeId id) const {
  const auto count =
      std::find_if(report_counts_.begin(), report_counts_.end(), [&](const auto& entry) { return entry.first == id; });
  return count == report_counts_.end() ? 0 : count->second;
}

Goal Store::goal_of(const NodeView& node) const {
  Goal goal;
  goal.state = node.goal;
  goal.term = group.term;
  goal.seq = node.goal_seq;
  goal.peers_version = peers_version;
  goal.lease_seconds = static_cast<int>(group.timing.lease.count() / 1000);
  goal.promised_timeline = group.promised_timeline;
  goal.number_sync_standbys = group.number_sync_standbys;
  if (!group.names.empty() && group.names.back().by == node.id) {
    goal.names = group.names.back().names;
    goal.names_version = group.names_version;
  } else if (runs_as_standby(node.goal) && group.number_sync_standbys > 0) {
    goal.names = nobody();
  }
  switch (node.goal) {
    case NodeState::fast_forward: goal.upstream = node.source; break;
    case NodeState::wait_standby:
    case NodeState::catchingup:
    case NodeState::secondary:
    case NodeState::prepare_promotion:
    case NodeState::demoted:
    case NodeState::join_secondary:
    case NodeState::wait_maintenance:
      for (const NodeView& other : group.nodes) {
        if (other.id == node.id) continue;
        if (takes_writes(other.goal)) {
          goal.upstream = other.id;
          break;
        }
        const bool leaving = other.goal == NodeState::draining || other.goal == NodeState::prepare_maintenance;
        if (leaving && !goal.upstream) goal.upstream = other.id;
      }
      break;
    default: break;
  }
  return goal;
}

std::vector<Peer> Store::peers_of(NodeId self) const {
  std::vector<Peer> peers;
  for (const NodeView& node : group.nodes) {
    if (node.id == self || node.goal == NodeState::dropped) continue;
    Peer peer;
    peer.id = node.id;
    peer.is_primary = takes_writes(node.goal);
    peers.push_back(peer);
  }
  return peers;
}

bool Store::add_node(NodeId id, int priority, bool quorum) {
  if (group.learning) return false;
  const bool first = group.nodes.empty();
  const bool leader =
      std::any_of(group.nodes.begin(), group.nodes.end(), [](const NodeView& node) { return takes_writes(node.goal); });
  if (!first && !leader) return false;
  NodeView node = newcomer(id, priority, quorum);
  if (first) node.goal = NodeState::single;
  node.goal_seq = 1;
  group.nodes.push_back(node);
  ++peers_version;
  if (first) {
    group.term.value += 1;
    group.promised_timeline = Timeline{};
    group.names.clear();
    system.clear();
  }
  return true;
}

bool Store::ask(RequestKind kind, std::optional<NodeId> node, bool allow) {
  if (group.request || group.nodes.empty()) return false;
  group.request = Request{
      ++requests, kind, node, kind == RequestKind::failover && allow, kind == RequestKind::start_maintenance && allow,
      Millis{0}};
  return true;
}

void Store::remove_by_force(NodeId id) {
  const NodeView* node = find(id);
  if (node != nullptr && node->account) {
    group.term = std::max(group.term, node->account->term);
    group.promised_timeline = std::max(group.promised_timeline, node->account->promised_timeline);
  }
  ++group.term.value;
  if (group.learning && node != nullptr && fsm::may_hold_commits(*node)) {
    group.names.push_back({SyncNames{1, {id}}, NodeId{0}});
  }
  remove(id);
  ++peers_version;
  if (group.learning && group.nodes.empty()) {
    group.learning = false;
    group.names.clear();
  }
}

void Store::remove(NodeId id) {
  if (std::erase_if(group.nodes, [id](const NodeView& node) { return node.id == id; }) == 0) return;
  removed.insert(id.value);
}

void Store::apply(const fsm::Decision& decision) {
  if (decision.term) group.term = *decision.term;
  if (decision.promised_timeline) group.promised_timeline = *decision.promised_timeline;
  if (decision.learned) {
    group.learning = false;
    group.names = decision.learned->names;
    group.names_version = decision.learned->names_version;
    peers_version = decision.learned->peers_version;
    for (NodeView& node : group.nodes) {
      node.goal_seq = decision.learned->seq;
      node.account.reset();
    }
  }
  if (decision.confirm_names && !group.names.empty()) group.names = {group.names.back()};
  if (decision.heir) set_heir(group.names, *decision.heir);
  if (decision.names_goal) {
    add_names(group.names, *decision.names_goal);
    ++group.names_version;
  }
  for (const fsm::GoalChange& change : decision.goals) {
    NodeView* node = find(change.node);
    if (node == nullptr) continue;
    node->goal = change.goal;
    node->source = change.source;
    ++node->goal_seq;
  }
  for (const NodeId id : decision.remove) remove(id);
  if (!decision.remove.empty()) ++peers_version;
  if (decision.request == fsm::RequestOutcome::pending) return;
  refusal = decision.request == fsm::RequestOutcome::refused ? std::optional(decision.request_message) : std::nullopt;
  group.request.reset();
}

void Store::forget_reports() {
  report_counts_.clear();
  for (NodeView& node : group.nodes) {
    node.pg_running = node.pg_responding = node.streaming = node.disk_full = false;
    node.timeline = Timeline{};
    node.lsn = Lsn{};
    node.history.clear();
    node.upstream = UpstreamSight::unknown;
    node.reason.clear();
  }
}

}  // namespace pgvigil::simulation
