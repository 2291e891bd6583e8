// What the monitor, the keepers and their state files write as JSON. All parsers throw std::exception.
#pragma once
#include <boost/json/fwd.hpp>
#include <string>
#include <vector>

#include "common/model/account.hpp"
#include "common/moments/moments.hpp"

namespace pgvigil::monitor_api {

boost::json::object names_object(const SyncNames& names);
SyncNames names_from(const boost::json::value& value);

boost::json::array peers_array(const std::vector<Peer>& peers);
std::vector<Peer> peers_from(const boost::json::value& value);

std::string to_json(const Account& account);
Account parse_account(const std::string& document);

// [{"moment": "promoted", "ms": 95, "detail": ""}]; ms since the earliest of them.
boost::json::array moments_array(const std::vector<moments::Moment>& told);
std::vector<moments::Moment> moments_from(const boost::json::value& value);

NodeState state_at(const boost::json::object& object, const char* key);

}  // namespace pgvigil::monitor_api
