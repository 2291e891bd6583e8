// A level-triggered wake-up between coroutines of one io_context.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>

namespace pgvigil::os {

class Event {
 public:
  explicit Event(const boost::asio::any_io_executor& executor);
  void set();
  // True when the event is or becomes set within `timeout` (it is reset then); false after the timeout. One waiter at a
  // time. Cancellable.
  boost::asio::awaitable<bool> wait(std::chrono::milliseconds timeout);

 private:
  bool is_set_{false};
  boost::asio::steady_timer timer_;
};

boost::asio::awaitable<void> sleep_for(std::chrono::milliseconds duration);
// Between half of it and one and a half, by chance: those who have lost something together do not come back together.
boost::asio::awaitable<void> sleep_about(std::chrono::milliseconds duration);

}  // namespace pgvigil::os
