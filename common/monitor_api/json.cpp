#include "common/monitor_api/json.hpp"

#include <algorithm>
#include <boost/json.hpp>

namespace pgvigil::monitor_api {

namespace json = boost::json;

json::object names_object(const SyncNames& names) {
  json::array members;
  for (const NodeId id : names.members) members.push_back(id.value);
  return {{"required", names.required}, {"members", members}};
}

SyncNames names_from(const json::value& value) {
  const json::object& object = value.as_object();
  SyncNames names;
  names.required = object.at("required").to_number<int>();
  for (const json::value& member : object.at("members").as_array()) {
    names.members.push_back(NodeId{member.to_number<std::int64_t>()});
  }
  if (names.required < 0) throw Error("a number is out of range");
  return normalized(std::move(names));
}

json::array peers_array(const std::vector<Peer>& peers) {
  json::array array;
  for (const Peer& peer : peers) {
    array.push_back(json::object{{"id", peer.id.value},
                                 {"name", peer.name},
                                 {"host", peer.host},
                                 {"port", peer.port},
                                 {"is_primary", peer.is_primary},
                                 {"sslmode", peer.sslmode}});
  }
  return array;
}

std::vector<Peer> peers_from(const json::value& value) {
  std::vector<Peer> peers;
  for (const json::value& item : value.as_array()) {
    const json::object& object = item.as_object();
    Peer peer;
    peer.id.value = object.at("id").to_number<std::int64_t>();
    peer.name = json::value_to<std::string>(object.at("name"));
    peer.host = json::value_to<std::string>(object.at("host"));
    peer.port = object.at("port").to_number<int>();
    peer.is_primary = object.at("is_primary").as_bool();
    // Not in the files of version 0.1.0.
    if (const json::value* sslmode = object.if_contains("sslmode"))
      peer.sslmode = json::value_to<std::string>(*sslmode);
    peers.push_back(std::move(peer));
  }
  return peers;
}

json::array moments_array(const std::vector<moments::Moment>& told) {
  const auto earlier = [](const moments::Moment& left, const moments::Moment& right) { return left.at < right.at; };
  const auto first = std::min_element(told.begin(), told.end(), earlier);
  json::array array;
  for (const moments::Moment& moment : told) {
    array.push_back(
        json::object{{"moment", moment.name}, {"ms", (moment.at - first->at).count()}, {"detail", moment.detail}});
  }
  return array;
}

std::vector<moments::Moment> moments_from(const json::value& value) {
  std::vector<moments::Moment> told;
  for (const json::value& item : value.as_array()) {
    const json::object& object = item.as_object();
    told.push_back({json::value_to<std::string>(object.at("moment")),
                    moments::Millis{object.at("ms").to_number<std::int64_t>()},
                    json::value_to<std::string>(object.at("detail"))});
  }
  return told;
}

NodeState state_at(const json::object& object, const char* key) {
  const auto state = parse_node_state(json::value_to<std::string>(object.at(key)));
  if (!state) throw Error(std::string("unknown state in \"") + key + "\"");
  return *state;
}

std::string to_json(const Account& account) {
  const json::object object{{"reported", to_string(account.reported)},
                            {"goal", to_string(account.goal)},
                            {"term", account.term.value},
                            {"seq", account.seq},
                            {"names", names_object(account.names)},
                            {"names_version", account.names_version},
                            {"names_confirmed", account.names_confirmed},
                            {"copy_unfinished", account.copy_unfinished},
                            {"timeline", account.timeline.value},
                            {"promised_timeline", account.promised_timeline.value},
                            {"number_sync_standbys", account.number_sync_standbys},
                            {"lease_seconds", account.lease_seconds},
                            {"peers", peers_array(account.peers)},
                            {"peers_version", account.peers_version}};
  return json::serialize(object);
}

Account parse_account(const std::string& document) {
  const json::value value = json::parse(document);
  const json::object& object = value.as_object();
  Account account;
  account.reported = state_at(object, "reported");
  account.goal = state_at(object, "goal");
  account.term.value = object.at("term").to_number<std::int64_t>();
  account.seq = object.at("seq").to_number<std::int64_t>();
  account.names = names_from(object.at("names"));
  account.names_version = object.at("names_version").to_number<std::int64_t>();
  account.names_confirmed = object.at("names_confirmed").as_bool();
  account.copy_unfinished = object.at("copy_unfinished").as_bool();
  account.timeline.value = object.at("timeline").to_number<std::uint32_t>();
  account.promised_timeline.value = object.at("promised_timeline").to_number<std::uint32_t>();
  account.number_sync_standbys = object.at("number_sync_standbys").to_number<int>();
  if (const json::value* lease = object.if_contains("lease_seconds")) account.lease_seconds = lease->to_number<int>();
  account.peers = peers_from(object.at("peers"));
  account.peers_version = object.at("peers_version").to_number<std::int64_t>();
  return account;
}

}  // namespace pgvigil::monitor_api
