#include "keeper/service/state_file.hpp"

#include <boost/json.hpp>

#include "common/monitor_api/json.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/file.hpp"

namespace pgvigil::keeper {

namespace json = boost::json;

namespace {

json::array numbers(const std::vector<Timeline>& timelines) {
  json::array array;
  for (const Timeline one : timelines) array.push_back(one.value);
  return array;
}

json::object goal_object(const Goal& goal) {
  json::object object{{"state", to_string(goal.state)},
                      {"term", goal.term.value},
                      {"seq", goal.seq},
                      {"names", monitor_api::names_object(goal.names)},
                      {"names_version", goal.names_version},
                      {"peers_version", goal.peers_version},
                      {"lease_seconds", goal.lease_seconds},
                      {"promised_timeline", goal.promised_timeline.value},
                      {"number_sync_standbys", goal.number_sync_standbys},
                      {"wal_floor", to_string(goal.wal_floor)}};
  if (goal.upstream) {
    object["upstream"] = goal.upstream->value;
  } else {
    object["upstream"] = nullptr;
  }
  return object;
}

}  // namespace

std::string to_json(const KeeperState& state) {
  const json::object object{{"version", 1},
                            {"node_id", state.node.value},
                            {"name", state.name},
                            {"reported", to_string(state.reported)},
                            {"reported_seq", state.reported_seq},
                            {"term", state.term.value},
                            {"goal", goal_object(state.goal)},
                            {"timeline", state.timeline.value},
                            {"own_timelines", numbers(state.own_timelines)},
                            {"foreign_promotion", state.foreign_promotion},
                            {"system_identifier", state.system_identifier},
                            {"peers", monitor_api::peers_array(state.peers)},
                            {"peers_version", state.peers_version},
                            {"sslmode", state.sslmode}};
  return json::serialize(object) + "\n";
}

KeeperState parse_state(const std::string& text) {
  try {
    const json::value document = json::parse(text);
    const json::object& object = document.as_object();
    if (object.at("version").to_number<int>() != 1) throw Error("it was written by a newer version");
    KeeperState state;
    state.node.value = object.at("node_id").to_number<std::int64_t>();
    state.name = json::value_to<std::string>(object.at("name"));
    state.reported = monitor_api::state_at(object, "reported");
    state.reported_seq = object.at("reported_seq").to_number<std::int64_t>();
    state.term.value = object.at("term").to_number<std::int64_t>();
    state.goal = monitor_api::parse_goal(json::serialize(object.at("goal")));
    state.timeline.value = object.at("timeline").to_number<std::uint32_t>();
    if (const json::value* own = object.if_contains("own_timeline")) {  // from before there could be several
      state.own_timelines.push_back({own->to_number<std::uint32_t>()});
    }
    if (const json::value* own = object.if_contains("own_timelines")) {
      for (const json::value& one : own->as_array()) state.own_timelines.push_back({one.to_number<std::uint32_t>()});
    }
    if (const json::value* foreign = object.if_contains("foreign_promotion")) {
      state.foreign_promotion = foreign->as_bool();
    }
    if (const json::value* system = object.if_contains("system_identifier")) {
      state.system_identifier = json::value_to<std::string>(*system);
    }
    state.peers = monitor_api::peers_from(object.at("peers"));
    state.peers_version = object.at("peers_version").to_number<std::int64_t>();
    if (const json::value* sslmode = object.if_contains("sslmode")) {
      state.sslmode = json::value_to<std::string>(*sslmode);
    }
    return state;
  } catch (const std::exception& error) {
    throw UserError(ExitCode::bad_state, std::string("the keeper's state file cannot be used: ") + error.what(),
                    "restore it from a backup, or drop the node and create it again");
  }
}

std::filesystem::path state_path(const std::string& state_directory) {
  return std::filesystem::path(state_directory) / "keeper.json";
}

std::optional<KeeperState> load_state(const std::string& state_directory) {
  const auto text = os::read_file(state_path(state_directory));
  return text ? std::optional(parse_state(*text)) : std::nullopt;
}

void save_state(const std::string& state_directory, const KeeperState& state) {
  os::write_file_atomic(state_path(state_directory), to_json(state));
}

bool StateFile::holds(const KeeperState& state) {
  try {
    bool over = work_.over();
    if (over) written_ = writing_;
    if (over && written_ != wanted_) {
      writing_ = wanted_;
      over = work_.run([directory = directory_, state] { save_state(directory, state); });
      if (over) written_ = writing_;
    }
    failure_ =
        over ? "" : "nothing is done before the state file is written: the disk of " + directory_ + " does not answer";
  } catch (const std::exception& error) {
    writing_ = written_;
    failure_ = std::string("nothing is done before the state file can be written: ") + error.what() +
               "; make room there, or mend the disk";
  }
  return written_ == wanted_;
}

}  // namespace pgvigil::keeper
