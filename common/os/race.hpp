// Waiting for whichever of several coroutines ends first.
#pragma once
#include <boost/asio/awaitable.hpp>

namespace pgvigil::os {

// Ends when the first of them ends, by return or by exception (which is thrown on); the others are cancelled and waited
// for. Asio's own operator|| goes on waiting when one of them throws: a lost connection would be noticed only when the
// other side ends.
boost::asio::awaitable<void> race(boost::asio::awaitable<void> left, boost::asio::awaitable<void> right);

template <class... More>
boost::asio::awaitable<void> race(boost::asio::awaitable<void> first, boost::asio::awaitable<void> second,
                                  boost::asio::awaitable<void> third, More... more) {
  return race(std::move(first), race(std::move(second), std::move(third), std::move(more)...));
}

}  // namespace pgvigil::os
