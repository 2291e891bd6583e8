#include "common/os/race.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace pgvigil::os {

namespace asio = boost::asio;

asio::awaitable<void> race(asio::awaitable<void> left, asio::awaitable<void> right) {
  const auto executor = co_await asio::this_coro::executor;
  auto group = asio::experimental::make_parallel_group(asio::co_spawn(executor, std::move(left), asio::deferred),
                                                       asio::co_spawn(executor, std::move(right), asio::deferred));
  const auto [order, left_error, right_error] =
      co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  const std::exception_ptr first = order[0] == 0 ? left_error : right_error;
  if (first) std::rethrow_exception(first);
}

}  // namespace pgvigil::os
