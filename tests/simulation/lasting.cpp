// One fault that does not end soon, in a healthy group. While it lasts, commits go on wherever the number of standbys
// that have to confirm them allows it; what is judged after all faults have ended says nothing about that.
#include <algorithm>

#include "monitor/fsm/predicates.hpp"
#include "tests/simulation/world.hpp"

namespace pgvigil::simulation {

namespace {

enum class Whom : std::uint8_t { primary, standby };
enum class With : std::uint8_t { itself, monitor, primary };
struct Lasting {
  FaultKind kind;
  Whom whom;
  With with{With::itself};
  bool loses_a_node{true};  // one node less that can confirm commits, or take them
};
constexpr std::array faults{
    Lasting{FaultKind::kill_node, Whom::primary},
    Lasting{FaultKind::kill_keeper, Whom::primary},
    Lasting{FaultKind::pause_postgres, Whom::primary},
    Lasting{FaultKind::pause_keeper, Whom::primary},
    Lasting{FaultKind::pause_node, Whom::primary},
    Lasting{FaultKind::broken_disk, Whom::primary},
    Lasting{FaultKind::isolate, Whom::primary},
    Lasting{FaultKind::cut, Whom::primary, With::monitor, false},
    Lasting{FaultKind::cut_one_way, Whom::primary, With::monitor, false},
    Lasting{FaultKind::kill_node, Whom::standby},
    Lasting{FaultKind::kill_keeper, Whom::standby},
    Lasting{FaultKind::pause_postgres, Whom::standby},
    Lasting{FaultKind::pause_keeper, Whom::standby},
    Lasting{FaultKind::pause_node, Whom::standby},
    Lasting{FaultKind::broken_disk, Whom::standby},
    Lasting{FaultKind::isolate, Whom::standby},
    Lasting{FaultKind::cut, Whom::standby, With::monitor},
    Lasting{FaultKind::cut_one_way, Whom::standby, With::monitor},
    Lasting{FaultKind::cut, Whom::standby, With::primary},
    Lasting{FaultKind::cut_one_way, Whom::standby, With::primary},
    Lasting{FaultKind::kill_monitor, Whom::primary, With::itself, false},
    Lasting{FaultKind::kill_database, Whom::primary, With::itself, false},
};

}  // namespace

// Nodes that confirm commits, or could: two faults are one too many for those that the first one has taken out.
int World::protectors(const NodeView& primary) const {
  const auto& nodes = store_.group.nodes;
  return static_cast<int>(std::count_if(nodes.begin(), nodes.end(), [&](const NodeView& node) {
    return &node != &primary && node.replication_quorum && node.converged(NodeState::secondary) &&
           index_of(node.id) != lasting_victim_;
  }));
}

// Where data was left out by force, a person may be needed again.
bool World::bears_a_fault(const NodeView* primary) const {
  const GroupSnapshot& group = store_.group;
  const bool steady = primary != nullptr && primary->goal == NodeState::primary && primary->converged() &&
                      index_of(primary->id) != lasting_victim_ && group.names.size() == 1;
  if (!steady || removed_by_force_ || learned_by_force_) return false;
  const std::vector<NodeId>& members = group.names.back().names.members;
  return !members.empty() &&
         std::all_of(members.begin(), members.end(), [this](NodeId id) { return store_.group.find(id) != nullptr; });
}

void World::begin_lasting_fault() {
  const bool second = lasting_faults_++ > 0;
  const GroupSnapshot& group = store_.group;
  const NodeView* primary = fsm::writer(group);
  if (!bears_a_fault(primary)) {
    if (!second) finished_ = true;
    return;
  }
  const std::vector<NodeId>& members = group.names.back().names.members;
  const int count = protectors(*primary);
  const int writer = index_of(primary->id);
  const int standby = index_of(members[static_cast<std::size_t>(random_.index(static_cast<int>(members.size())))]);
  if (second && standby == lasting_victim_) return;  // it counts on
  const Time judged_after = 45000 + 2 * plan_.slow + longer();
  const Time lasts = (second ? 1 : 2) * (judged_after + 30000);
  lasting_judged_at_ = now_ + judged_after;
  lasting_ends_ = std::max(lasting_ends_, now_ + lasts);
  healthy_since_ = -1;
  int lost = 0;
  bool writer_is_hit = false;
  const auto begin = [&](FaultKind kind, int node, int other, Time length) {
    inject(Fault{now_, kind, node, other, length, random_.chance(50) ? 0 : 99});
  };
  switch (random_.index(8)) {
    case 0:  // nobody of the others reaches the primary
      for (const NodeView& node : group.nodes) begin(FaultKind::cut, writer, index_of(node.id), lasts);
      lost = count;
      break;
    case 1:  // no monitor, and a standby that is away for longer than a lease
      begin(FaultKind::kill_database, 1, 0, lasts);
      begin(FaultKind::kill_node, standby, 0, random_.between(1000, 20000));
      lasting_judged_at_ += 20000;
      break;
    case 2:  // no monitor, and everybody starts anew
      begin(FaultKind::kill_database, 1, 0, lasts);
      for (const NodeView& node : group.nodes) {
        if (index_of(node.id) == lasting_victim_) continue;
        begin(FaultKind::kill_node, index_of(node.id), 0, random_.between(100, 15000));
      }
      lasting_judged_at_ += 20000;
      break;
    default: {
      // By numbers of their own: all other histories are as they were.
      if (seed_ % 64 == 30) {
        const bool of_primary = random_.chance(50);
        begin(FaultKind::full_disk, of_primary ? writer : standby, 0, lasts);
        lost = 1;
        writer_is_hit = of_primary;
        if (!second) lasting_victim_ = of_primary ? writer : standby;
        break;
      }
      const Lasting& fault = faults[static_cast<std::size_t>(random_.index(static_cast<int>(faults.size())))];
      const int node = fault.whom == Whom::primary ? writer : standby;
      begin(fault.kind, node, fault.with == With::primary ? writer : 0, lasts);
      lost = fault.loses_a_node ? 1 : 0;
      writer_is_hit = fault.whom == Whom::primary && fault.loses_a_node;
      if (!second && lost > 0) lasting_victim_ = node;
    }
  }
  lasting_spare_ = count - lost - group.number_sync_standbys;
  lasting_writer_ = writer_is_hit || lasting_spare_ < 0 ? 0 : writer;
  if (seed_ % 8 == 6) {
    const Time when = now_ + random_.between(1000, 20000);
    at(when, Kind::ask_meanwhile);
    lasting_judged_at_ = std::max(lasting_judged_at_, when + 80000 + 2 * plan_.slow + longer());
  }
}

// An operator who does not wait for its end, or who has seen nothing of it.
void World::ask_meanwhile() {
  const auto& nodes = store_.group.nodes;
  const NodeView& node = nodes[static_cast<std::size_t>(random_.index(static_cast<int>(nodes.size())))];
  lasting_writer_ = 0;
  // One that confirms commits takes the place of one that does not.
  const NodeView* primary = fsm::writer(store_.group);
  if (primary != nullptr && !primary->replication_quorum) --lasting_spare_;
  switch (random_.index(4)) {
    case 0: return operator_asks(RequestKind::failover, index_of(node.id), false);
    case 1: return operator_asks(RequestKind::promotion, index_of(node.id), false);
    default: --lasting_spare_; operator_asks(RequestKind::start_maintenance, index_of(node.id), random_.chance(70));
  }
}

void World::beside_the_fault() {
  if (now_ < lasting_judged_at_) return;
  lasting_judged_at_ = 0;
  heal_deadline_ = lasting_ends_ + 60000 + 4 * plan_.slow + longer();
  if (lasting_spare_ >= 0 && now_ - last_ack_ > 3000) {
    return fail("L7: a fault lasts, and no commit is acknowledged:" + explanations());
  }
  const NodeView* primary = fsm::writer(store_.group);
  if (lasting_writer_ != 0 && (primary == nullptr || index_of(primary->id) != lasting_writer_))
    return fail("L5: node " + std::to_string(lasting_writer_) + " can go on, and was replaced");
  // What the first one has made of the group bears another one.
  if (seed_ % 8 == 2 && lasting_victim_ != 0 && lasting_faults_ == 1) begin_lasting_fault();
}

}  // namespace pgvigil::simulation
