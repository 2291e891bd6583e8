#include "common/cli/client/fresh_events.hpp"

#include <algorithm>

namespace pgvigil::client {

namespace json = boost::json;

json::array FreshEvents::of(const json::array& newest, std::size_t limit) {
  json::array fresh;
  for (const json::value& event : newest) {
    const auto id = event.at("eventid").to_number<std::int64_t>();
    if (id >= begin_ && seen_.insert(id).second) fresh.push_back(event);
  }
  // When old events are deleted, still older ones come into the picture.
  if (newest.size() >= limit) begin_ = std::max(begin_, newest.front().at("eventid").to_number<std::int64_t>());
  seen_.erase(seen_.begin(), seen_.lower_bound(begin_));
  return fresh;
}

}  // namespace pgvigil::client
