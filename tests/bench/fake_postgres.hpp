// Just enough of a PostgreSQL for the monitor's probe: takes any startup packet, answers every simple query with one
// row "1". Closed, its port refuses, as that of a PostgreSQL that has ended.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace pgvigil::bench {

namespace asio = boost::asio;

class FakePostgres {
 public:
  FakePostgres(asio::io_context& context, const std::string& address, std::uint16_t port);
  void open();
  void close();
  static std::uint64_t queries;   // answered by all of them
  static std::uint64_t sessions;  // taken by all of them

 private:
  using Socket = asio::ip::tcp::socket;
  asio::awaitable<void> accept();
  static asio::awaitable<void> serve(std::shared_ptr<Socket> socket);
  static asio::awaitable<bool> start_up(Socket& socket);

  asio::io_context& context_;
  asio::ip::tcp::endpoint endpoint_;
  std::optional<asio::ip::tcp::acceptor> acceptor_;
  std::set<std::shared_ptr<Socket>> sockets_;
};

}  // namespace pgvigil::bench
