// Of one picture of the newest events after another: those that were not there before.
#pragma once
#include <boost/json.hpp>
#include <cstdint>
#include <set>

namespace pgvigil::client {

// An event has its number before it is there for others to see: one with a lower number may come after one with a
// higher.
class FreshEvents {
 public:
  // `newest`: the last `limit` events, or all that there are, by their numbers.
  boost::json::array of(const boost::json::array& newest, std::size_t limit);

 private:
  std::set<std::int64_t> seen_;
  std::int64_t begin_{0};  // what is older was there before, or had its place in an earlier picture
};

}  // namespace pgvigil::client
