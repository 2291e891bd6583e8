#include <boost/json.hpp>

#include "common/monitor_api/json.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

constexpr pg::Millis patience{5000};

asio::awaitable<void> update_group(pg::Connection& database, const GroupSnapshot& group,
                                   const fsm::Decision& decision) {
  std::vector<NamesInForce> names = decision.learned ? decision.learned->names : group.names;
  const std::int64_t names_version = decision.learned ? decision.learned->names_version : group.names_version;
  if (decision.confirm_names && !names.empty()) names = {names.back()};
  if (decision.heir) set_heir(names, *decision.heir);
  if (decision.names_goal) add_names(names, *decision.names_goal);
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  params.emplace_back(std::to_string(decision.term.value_or(group.term).value));
  params.emplace_back(names_json(names));
  params.emplace_back(std::to_string(names_version + (decision.names_goal ? 1 : 0)));
  params.emplace_back(decision.remove.empty() ? "0" : "1");
  params.emplace_back(std::to_string(decision.promised_timeline.value_or(group.promised_timeline).value));
  co_await database.query_prepared(
      "UPDATE pgvigil.grp SET term = $3, names_in_force = $4::jsonb, names_version = $5, peers_version = peers_version "
      "+ $6, timeline = $7 "
      "WHERE formation = $1 AND group_id = $2",
      params, patience);
}

// Names and versions are written by update_group().
asio::awaitable<void> store_learned(pg::Connection& database, const GroupSnapshot& group, const fsm::Learned& learned) {
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  params.emplace_back(std::to_string(learned.peers_version));
  co_await database.query(
      "UPDATE pgvigil.grp SET learning = false, peers_version = $3 WHERE formation = $1 AND group_id = $2", params,
      patience);
  params.back() = std::to_string(learned.seq);
  co_await database.query(
      "UPDATE pgvigil.node SET goal_seq = $3, account = NULL WHERE formation = $1 AND group_id = $2", params, patience);
}

asio::awaitable<void> record(pg::Connection& database, const GroupSnapshot& group, const fsm::Decision& decision,
                             std::optional<NodeId> node) {
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  if (node) {
    params.emplace_back(std::to_string(node->value));
  } else {
    params.emplace_back(std::nullopt);
  }
  params.emplace_back(std::to_string(decision.term.value_or(group.term).value));
  params.emplace_back(std::to_string(decision.rule));
  params.emplace_back(std::string(decision.rule_name));
  params.emplace_back(decision.description);
  co_await database.query_prepared(
      "SELECT pgvigil.record_event($1, $2, (SELECT n FROM pgvigil.node n WHERE n.id = $3), $4, $5, $6, $7)", params,
      patience);
}

// The order and its event.
asio::awaitable<void> set_goal(pg::Connection& database, const GroupSnapshot& group, const fsm::Decision& decision,
                               const fsm::GoalChange& change) {
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  params.emplace_back(std::to_string(change.node.value));
  params.emplace_back(std::to_string(decision.term.value_or(group.term).value));
  params.emplace_back(std::to_string(decision.rule));
  params.emplace_back(std::string(decision.rule_name));
  params.emplace_back(decision.description);
  params.emplace_back(std::string(to_string(change.goal)));
  if (change.source) {
    params.emplace_back(std::to_string(change.source->value));
  } else {
    params.emplace_back(std::nullopt);
  }
  co_await database.query_prepared(
      "WITH changed AS (UPDATE pgvigil.node AS n SET goal_state = $8, goal_seq = goal_seq + 1, goal_since = now(), "
      "source_id = $9 WHERE id = $3 RETURNING n) "
      "SELECT pgvigil.record_event($1, $2, (SELECT n FROM changed), $4, $5, $6, $7)",
      params, patience);
}

asio::awaitable<void> remove_node(pg::Connection& database, NodeId node) {
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(node.value));
  co_await database.query_prepared(
      "WITH gone AS (DELETE FROM pgvigil.node WHERE id = $1 RETURNING id, formation, name, system_identifier) "
      "INSERT INTO pgvigil.removed_node (node_id, formation, name, system_identifier) "
      "SELECT id, formation, name, system_identifier FROM gone",
      params, patience);
}

asio::awaitable<void> close_request(pg::Connection& database, const GroupSnapshot& group,
                                    const fsm::Decision& decision) {
  if (!group.request || decision.request == fsm::RequestOutcome::pending) co_return;
  std::vector<pg::Param> params;
  params.emplace_back(std::to_string(group.request->id));
  params.emplace_back(decision.request == fsm::RequestOutcome::accepted ? "accepted" : "refused");
  params.emplace_back(decision.request_message);
  co_await database.query_prepared(
      "UPDATE pgvigil.request SET status = $2, message = $3, decided_at = now() WHERE id = $1", params, patience);
}

}  // namespace

std::string names_json(const std::vector<NamesInForce>& lists) {
  json::array array;
  for (const NamesInForce& entry : lists) {
    json::object object = monitor_api::names_object(entry.names);
    object["by"] = entry.by.value;
    object["heir"] = entry.heir.value;
    array.push_back(object);
  }
  return json::serialize(array);
}

asio::awaitable<std::int64_t> apply(pg::Connection& database, const GroupSnapshot& group,
                                    const fsm::Decision& decision) {
  if (decision.learned) co_await store_learned(database, group, *decision.learned);
  co_await update_group(database, group, decision);
  for (const fsm::GoalChange& change : decision.goals) {
    co_await set_goal(database, group, decision, change);
  }
  for (const NodeId node : decision.remove) {
    co_await record(database, group, decision, node);
    co_await remove_node(database, node);
  }
  if (decision.goals.empty() && decision.remove.empty()) co_await record(database, group, decision, std::nullopt);
  co_await close_request(database, group, decision);
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  const pg::Result memory = co_await database.query_prepared(
      "WITH m AS (UPDATE pgvigil.memory SET generation = generation + 1 RETURNING generation) "
      "SELECT generation, pgvigil.wake_keepers($1, $2) FROM m",
      params, patience);
  co_return memory.integer(0, "generation");
}

asio::awaitable<void> store_explanations(pg::Connection& database, const GroupSnapshot& group,
                                         const std::vector<fsm::Explanation>& explanations) {
  json::array rows;
  for (const fsm::Explanation& why : explanations) {
    json::object row{{"rule", why.rule}, {"waiting_for", why.waiting_for}, {"command", why.command}};
    row["node_id"] = why.node ? json::value(why.node->value) : json::value(0);
    rows.push_back(row);
  }
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  params.emplace_back(json::serialize(rows));
  co_await database.query_prepared("SELECT pgvigil.store_explanations($1, $2, $3::jsonb)", params, patience);
}

asio::awaitable<void> tell_of_wait(pg::Connection& database, const GroupSnapshot& group, const fsm::Explanation& why) {
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  params.emplace_back(std::to_string(why.node.value_or(NodeId{0}).value));
  params.emplace_back(std::to_string(why.rule));
  params.emplace_back(why.waiting_for + "; " + why.command);
  co_await database.query("SELECT pgvigil.tell_of_wait($1, $2, $3, $4, $5)", params, patience);
}

asio::awaitable<void> store_story(pg::Connection& database, const GroupSnapshot& group, const Story& story) {
  std::vector<pg::Param> params;
  params.emplace_back(group.formation);
  params.emplace_back(std::to_string(group.group));
  params.emplace_back(std::to_string(story.term.value));
  params.emplace_back(story.former_name);
  params.emplace_back(json::serialize(monitor_api::moments_array(story.moments)));
  co_await database.query("SELECT pgvigil.store_moments($1, $2, $3, 0, 'monitor', $4, $5::jsonb)", params, patience);
}

asio::awaitable<void> commit(pg::Connection& database) {
  co_await database.query("COMMIT", {}, patience);
}
asio::awaitable<void> rollback(pg::Connection& database) {
  co_await database.query("ROLLBACK", {}, patience);
}

}  // namespace pgvigil::monitor
