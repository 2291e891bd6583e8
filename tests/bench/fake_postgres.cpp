#include "tests/bench/fake_postgres.hpp"

#include <array>
#include <boost/asio.hpp>

namespace pgvigil::bench {

using asio::use_awaitable;

std::uint64_t FakePostgres::queries = 0;
std::uint64_t FakePostgres::sessions = 0;

namespace {

constexpr std::uint32_t protocol_3 = 196608;

std::uint32_t number(const char* bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string message(char kind, const std::string& body) {
  const auto length = static_cast<std::uint32_t>(body.size() + 4);
  std::string text(1, kind);
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(length >> shift & 0xff);
  return text + body;
}

std::string parameter(const std::string& name, const std::string& value) {
  return message('S', name + '\0' + value + '\0');
}

// AuthenticationOk, what libpq wants to know, BackendKeyData, ReadyForQuery.
std::string greeting() {
  return message('R', std::string(4, '\0')) + parameter("server_version", "15.0") +
         parameter("client_encoding", "UTF8") + parameter("standard_conforming_strings", "on") +
         message('K', std::string(8, '\1')) + message('Z', "I");
}

// RowDescription of one text column, DataRow "1", CommandComplete, ReadyForQuery.
std::string answer() {
  using namespace std::string_literals;
  const std::string column =
      "?column?\0"s + std::string(6, '\0') + "\0\0\0\x19"s + "\xff\xff"s + "\xff\xff\xff\xff"s + "\0\0"s;
  return message('T', "\0\1"s + column) + message('D', "\0\1\0\0\0\1"s + "1") + message('C', "SELECT 1\0"s) +
         message('Z', "I");
}

}  // namespace

FakePostgres::FakePostgres(asio::io_context& context, const std::string& address, std::uint16_t port)
    : context_(context), endpoint_(asio::ip::make_address(address), port) {}

void FakePostgres::open() {
  if (acceptor_) return;
  acceptor_.emplace(context_, endpoint_, true);
  asio::co_spawn(context_, accept(), asio::detached);
}

void FakePostgres::close() {
  if (!acceptor_) return;
  acceptor_->close();
  for (const auto& socket : sockets_) socket->close();
  sockets_.clear();
  acceptor_.reset();
}

asio::awaitable<void> FakePostgres::accept() {
  try {
    for (;;) {
      auto socket = std::make_shared<Socket>(co_await acceptor_->async_accept(use_awaitable));
      ++sessions;
      std::erase_if(sockets_, [](const auto& other) { return !other->is_open(); });
      sockets_.insert(socket);
      asio::co_spawn(context_, serve(socket), asio::detached);
    }
  } catch (const std::exception&) {
    // closed
  }
}

// False when there is no session: encryption was asked for and refused until the peer gave up, or a cancel request.
asio::awaitable<bool> FakePostgres::start_up(Socket& socket) {
  for (;;) {
    std::array<char, 8> head{};
    co_await asio::async_read(socket, asio::buffer(head), use_awaitable);
    const std::uint32_t length = number(head.data());
    if (length < head.size() || length > 10000) co_return false;
    std::string rest(length - head.size(), '\0');
    co_await asio::async_read(socket, asio::buffer(rest), use_awaitable);
    if (number(head.data() + 4) == protocol_3) co_return true;
    const std::string no = "N";  // no TLS, no GSS
    co_await asio::async_write(socket, asio::buffer(no), use_awaitable);
  }
}

asio::awaitable<void> FakePostgres::serve(std::shared_ptr<Socket> socket) {
  static const std::string hello = greeting();
  static const std::string one = answer();
  try {
    if (co_await start_up(*socket)) {
      co_await asio::async_write(*socket, asio::buffer(hello), use_awaitable);
      for (;;) {
        std::array<char, 5> head{};
        co_await asio::async_read(*socket, asio::buffer(head), use_awaitable);
        std::string body(number(head.data() + 1) - 4, '\0');
        co_await asio::async_read(*socket, asio::buffer(body), use_awaitable);
        if (head[0] != 'Q') break;
        ++queries;
        co_await asio::async_write(*socket, asio::buffer(one), use_awaitable);
      }
    }
  } catch (const std::exception&) {
    // the other side has closed, or this PostgreSQL has ended
  }
  boost::system::error_code ignored;
  socket->close(ignored);
}

}  // namespace pgvigil::bench
