#include "common/os/event.hpp"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>

namespace pgvigil::os {

namespace asio = boost::asio;

Event::Event(const asio::any_io_executor& executor) : timer_(executor) {}

void Event::set() {
  is_set_ = true;
  timer_.cancel();
}

asio::awaitable<bool> Event::wait(std::chrono::milliseconds timeout) {
  if (!is_set_) {
    timer_.expires_after(timeout);
    boost::system::error_code error;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
    // Woken by set(), or cancelled from outside: then is_set_ is still false and the next co_await throws.
  }
  co_return std::exchange(is_set_, false);
}

asio::awaitable<void> sleep_for(std::chrono::milliseconds duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_after(duration);
  co_await timer.async_wait(asio::use_awaitable);
}

asio::awaitable<void> sleep_about(std::chrono::milliseconds duration) {
  static std::minstd_rand chance{std::random_device{}()};  // every program has one thread for its coroutines
  std::uniform_int_distribution<std::chrono::milliseconds::rep> part(duration.count() / 2, duration.count() * 3 / 2);
  co_await sleep_for(std::chrono::milliseconds{part(chance)});
}

}  // namespace pgvigil::os
