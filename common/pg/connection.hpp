// libpq on Asio: a connection whose every wait is a coroutine with a time limit.
// One coroutine at a time may use a Connection. Any wait can be cancelled (Asio per-operation cancellation); a query
// that is cancelled or runs out of time closes the connection, because its answer could arrive later.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/types.hpp"

namespace pgvigil::pg {

using Millis = std::chrono::milliseconds;

// The server answered a statement with an error.
class SqlError : public Error {
 public:
  SqlError(std::string state, const std::string& message, std::string hint_text = {})
      : Error(message), sqlstate(std::move(state)), hint(std::move(hint_text)) {}
  std::string sqlstate;  // five characters
  std::string hint;
};

// The connection could not be made, or was lost, or an answer did not come in time.
class ConnectionError : public Error {
 public:
  enum class Kind {
    refused,   // an answer: nothing listens there (ECONNREFUSED, or no such Unix socket)
    rejected,  // the server answered, but refused the session (password, HBA, too many clients, starting up)
    timeout,   // silence
    tls,       // an answer, but no session encrypted as sslmode wants it
    lost,      // it was there and was closed
    other,     // name not resolved, network unreachable, ...
  };
  ConnectionError(Kind k, const std::string& message) : Error(message), kind(k) {}
  Kind kind;
};

// Rows in text form. Owns its PGresult.
class Result {
 public:
  explicit Result(void* pg_result);
  int rows() const;
  int columns() const;
  // Throw pgvigil::Error when there is no such column or the value is not of the type.
  std::optional<std::string> maybe(int row, std::string_view column) const;  // nullopt: NULL
  std::string text(int row, std::string_view column) const;                  // NULL: ""
  std::int64_t integer(int row, std::string_view column) const;
  bool boolean(int row, std::string_view column) const;
  std::string column_name(int column) const;

 private:
  std::shared_ptr<void> result_;
};

struct Notification {
  std::string channel;
  std::string payload;
};

using Param = std::optional<std::string>;

class Connection {
 public:
  // `conninfo`: keywords or a URI of hosts; never logged. `timeout`: of silence of an address; five times that in all.
  static boost::asio::awaitable<Connection> connect(std::string conninfo, Millis timeout);
  // `answers`: of silence once the host has been reached. A server that many ask at once needs longer for each.
  static boost::asio::awaitable<Connection> connect(std::string conninfo, Millis timeout, Millis answers);

  Connection(Connection&&) noexcept;
  Connection& operator=(Connection&&) noexcept;
  ~Connection();

  // One statement with parameters $1..; or, without parameters, several statements (the last result is returned).
  boost::asio::awaitable<Result> query(std::string sql, std::vector<Param> params = {}, Millis timeout = Millis{5000});

  // The same with one statement that is planned once a session: for what is asked all the time.
  boost::asio::awaitable<Result> query_prepared(std::string sql, std::vector<Param> params = {},
                                                Millis timeout = Millis{5000});

  // The next notification, or nullopt after `timeout`. Throws ConnectionError(lost) as soon as the server closes the
  // session. Cancelling it leaves the connection usable.
  boost::asio::awaitable<std::optional<Notification>> wait_notification(Millis timeout);

  // What a server stores of a role's password (RFC 5803); the password itself does not leave this process.
  std::string scram_verifier(const std::string& role, const std::string& password) const;

  bool is_open() const;
  void close();
  int server_version() const;  // 150018
  std::string host() const;    // of the server that was chosen
  std::string port() const;

 private:
  struct Impl;
  explicit Connection(std::unique_ptr<Impl> impl);
  boost::asio::awaitable<Result> run(std::function<int(Impl&)> send, Millis timeout);
  std::unique_ptr<Impl> impl_;
};

// For programs without a loop of their own: waits in the calling thread. Connecting, the limit is for each address.
class BlockingConnection {
 public:
  explicit BlockingConnection(const std::string& conninfo, Millis timeout = Millis{5000});
  ~BlockingConnection();
  Result query(const std::string& sql, const std::vector<Param>& params = {}, Millis timeout = Millis{10000});
  std::optional<Notification> wait_notification(Millis timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pgvigil::pg
