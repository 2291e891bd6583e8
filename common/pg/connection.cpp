#include "common/pg/connection.hpp"

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <map>

#include "common/pg/pq.hpp"

namespace pgvigil::pg {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

enum class Ready { io, timeout, cancelled };

// With TLS and a password a session takes seven round trips. A server that answers each in time is there: on a slow
// line a limit for all of them would never let anybody in.
constexpr int patience_with_the_slow = 5;

}  // namespace

struct Connection::Impl {
  explicit Impl(const asio::any_io_executor& executor) : socket(executor), timer(executor) {}
  ~Impl() { close(); }

  void close() {
    // The descriptor is libpq's: Asio must forget it before libpq closes it.
    if (socket.is_open()) socket.release();
    if (connection != nullptr) PQfinish(connection);
    connection = nullptr;
  }

  // libpq may change its socket between two polls (several hosts, a second address).
  void follow_socket() {
    const int fd = PQsocket(connection);
    if (fd < 0) throw detail::connect_error(connection);
    if (socket.is_open() && socket.native_handle() == fd && !reassign) return;
    if (socket.is_open()) socket.release();
    socket.assign(fd);
    reassign = false;
  }

  asio::awaitable<Ready> wait(asio::posix::stream_descriptor::wait_type direction, Clock::time_point deadline) {
    timer.expires_at(deadline);
    // Not by awaitables and their operator||, where the one that comes second ends by an exception: the monitor waits
    // thousands of times a second.
    auto either = asio::experimental::make_parallel_group(socket.async_wait(direction, asio::deferred),
                                                          timer.async_wait(asio::deferred));
    const auto [order, io_error, timer_error] =
        co_await either.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
    const boost::system::error_code first = order[0] == 0 ? io_error : timer_error;
    if (first == asio::error::operation_aborted) co_return Ready::cancelled;  // the next co_await throws
    co_return order[0] == 0 ? Ready::io : Ready::timeout;
  }

  [[noreturn]] void lose(const std::string& fallback) {
    std::string message = detail::message_of(connection);
    if (message.empty()) message = fallback;
    close();
    throw ConnectionError(ConnectionError::Kind::lost, message);
  }

  // Connected (nullopt), or what to try next.
  asio::awaitable<std::optional<std::string>> attempt(std::string conninfo, Millis timeout, Millis answers,
                                                      Clock::time_point end);
  asio::awaitable<void> flush(Clock::time_point deadline);
  asio::awaitable<PGresult*> next_result(Clock::time_point deadline);

  PGconn* connection{nullptr};
  asio::posix::stream_descriptor socket;
  asio::steady_timer timer;
  bool reassign{false};
  std::map<std::string, std::string> prepared;  // statement -> its name at the server
};

Connection::Connection(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Connection::Connection(Connection&&) noexcept = default;
Connection& Connection::operator=(Connection&&) noexcept = default;
Connection::~Connection() = default;

asio::awaitable<Connection> Connection::connect(std::string conninfo, Millis timeout) {
  co_return co_await connect(std::move(conninfo), timeout, timeout);
}

asio::awaitable<Connection> Connection::connect(std::string conninfo, Millis timeout, Millis answers) {
  const auto end = Clock::now() + patience_with_the_slow * answers;
  const auto executor = co_await asio::this_coro::executor;
  auto impl = std::make_unique<Impl>(executor);
  for (std::optional<std::string> next = std::move(conninfo); next;) {
    next = co_await impl->attempt(*next, timeout, answers, end);
  }
  PQsetnonblocking(impl->connection, 1);
  co_return Connection(std::move(impl));
}

asio::awaitable<std::optional<std::string>> Connection::Impl::attempt(std::string conninfo, Millis timeout,
                                                                      Millis answers, Clock::time_point end) {
  const detail::ConnectParams params(conninfo);
  connection = PQconnectStartParams(params.keywords(), params.values(), 0);
  if (connection == nullptr) throw ConnectionError(ConnectionError::Kind::other, "out of memory");
  // Notices are for psql's users; ours are in the results.
  PQsetNoticeProcessor(
      connection, [](void*, const char*) {}, nullptr);
  if (PQstatus(connection) == CONNECTION_BAD) throw detail::connect_error(connection);
  auto direction = asio::posix::stream_descriptor::wait_write;
  for (;;) {
    follow_socket();
    const bool reached = PQstatus(connection) != CONNECTION_STARTED;
    const Millis patience = reached ? answers : timeout;
    const Ready ready = co_await wait(direction, std::min(Clock::now() + patience, end));
    if (ready == Ready::timeout) {
      const auto left = reached ? std::nullopt : detail::behind_silent_address(conninfo, connection);
      if (!left) throw detail::no_answer_within(patience);
      close();
      co_return left;
    }
    const int old_socket = PQsocket(connection);
    const ConnStatusType before = PQstatus(connection);
    const PostgresPollingStatusType status = PQconnectPoll(connection);
    if (status == PGRES_POLLING_OK) break;
    if (status == PGRES_POLLING_FAILED) throw detail::connect_error(connection, before);
    direction = status == PGRES_POLLING_READING ? asio::posix::stream_descriptor::wait_read
                                                : asio::posix::stream_descriptor::wait_write;
    // A closed and re-opened socket may get the same number: Asio must register it again all the same.
    reassign = PQsocket(connection) != old_socket || PQstatus(connection) == CONNECTION_STARTED;
  }
  follow_socket();
  co_return std::nullopt;
}

asio::awaitable<void> Connection::Impl::flush(Clock::time_point deadline) {
  for (;;) {
    const int pending = PQflush(connection);
    if (pending == 0) co_return;
    if (pending < 0) lose("the connection was lost");
    const Ready ready = co_await wait(asio::posix::stream_descriptor::wait_write, deadline);
    if (ready == Ready::timeout) throw ConnectionError(ConnectionError::Kind::timeout, "the server takes no more data");
    if (PQconsumeInput(connection) == 0) lose("the connection was lost");
  }
}

// nullptr when the statement has no more results. The caller owns the result.
asio::awaitable<PGresult*> Connection::Impl::next_result(Clock::time_point deadline) {
  while (PQisBusy(connection) != 0) {
    const Ready ready = co_await wait(asio::posix::stream_descriptor::wait_read, deadline);
    if (ready == Ready::timeout) throw ConnectionError(ConnectionError::Kind::timeout, "no answer to a query in time");
    if (PQconsumeInput(connection) == 0) lose("the connection was lost");
  }
  co_return PQgetResult(connection);
}

asio::awaitable<Result> Connection::query(std::string sql, std::vector<Param> params, Millis timeout) {
  const std::vector<const char*> values = detail::param_values(params);
  const std::function<int(Impl&)> send = [&](Impl& impl) {
    return params.empty() ? PQsendQuery(impl.connection, sql.c_str())
                          : PQsendQueryParams(impl.connection, sql.c_str(), static_cast<int>(params.size()), nullptr,
                                              values.data(), nullptr, nullptr, 0);
  };
  co_return co_await run(send, timeout);
}

asio::awaitable<Result> Connection::query_prepared(std::string sql, std::vector<Param> params, Millis timeout) {
  std::string name;
  if (is_open()) {
    // Not when it is first seen, but when the server has it: a statement that failed to be prepared is tried again.
    const auto known = impl_->prepared.find(sql);
    name = known != impl_->prepared.end() ? known->second : "s" + std::to_string(impl_->prepared.size());
    if (known == impl_->prepared.end()) {
      const std::function<int(Impl&)> prepare = [&](Impl& impl) {
        return PQsendPrepare(impl.connection, name.c_str(), sql.c_str(), 0, nullptr);
      };
      co_await run(prepare, timeout);
      impl_->prepared.emplace(sql, name);
    }
  }
  const std::vector<const char*> values = detail::param_values(params);
  const std::function<int(Impl&)> send = [&](Impl& impl) {
    return PQsendQueryPrepared(impl.connection, name.c_str(), static_cast<int>(params.size()), values.data(), nullptr,
                               nullptr, 0);
  };
  co_return co_await run(send, timeout);
}

asio::awaitable<Result> Connection::run(std::function<int(Impl&)> send, Millis timeout) {
  if (!is_open()) throw ConnectionError(ConnectionError::Kind::lost, "the connection is closed");
  Impl& impl = *impl_;
  // Whatever ends this early leaves an answer under way: the connection can't be used again.
  struct CloseUnlessDone {
    Impl* impl;
    bool done{false};
    ~CloseUnlessDone() {
      if (!done) impl->close();
    }
  } guard{&impl};
  const auto deadline = Clock::now() + timeout;
  if (send(impl) == 0) impl.lose("the query could not be sent");
  co_await impl.flush(deadline);
  std::optional<Result> last;
  std::optional<SqlError> failure;
  for (;;) {
    PGresult* raw = co_await impl.next_result(deadline);
    if (raw == nullptr) break;
    Result result(raw);
    if (PQstatus(impl.connection) == CONNECTION_BAD) impl.lose("the connection was lost");
    try {
      detail::check(raw);
      last = result;
    } catch (const SqlError& error) {
      if (!failure) failure = error;
    }
  }
  if (PQstatus(impl.connection) == CONNECTION_BAD) impl.lose("the connection was lost");
  guard.done = true;
  if (failure) throw SqlError(*failure);
  if (!last) throw Error("the server sent no result");
  co_return *last;
}

asio::awaitable<std::optional<Notification>> Connection::wait_notification(Millis timeout) {
  if (!is_open()) throw ConnectionError(ConnectionError::Kind::lost, "the connection is closed");
  Impl& impl = *impl_;
  const auto deadline = Clock::now() + timeout;
  for (;;) {
    if (PQconsumeInput(impl.connection) == 0) impl.lose("the server closed the session");
    if (PGnotify* raw = PQnotifies(impl.connection)) {
      Notification notification{raw->relname, raw->extra};
      PQfreemem(raw);
      co_return notification;
    }
    if (Clock::now() >= deadline) co_return std::nullopt;
    const Ready ready = co_await impl.wait(asio::posix::stream_descriptor::wait_read, deadline);
    if (ready != Ready::io) co_return std::nullopt;
  }
}

std::string Connection::scram_verifier(const std::string& role, const std::string& password) const {
  const std::unique_ptr<char, decltype(&PQfreemem)> verifier(
      PQencryptPasswordConn(impl_->connection, password.c_str(), role.c_str(), "scram-sha-256"), PQfreemem);
  if (!verifier) throw Error("no SCRAM verifier: " + detail::message_of(impl_->connection));
  return verifier.get();
}

bool Connection::is_open() const {
  return impl_ != nullptr && impl_->connection != nullptr;
}
void Connection::close() {
  if (impl_ != nullptr) impl_->close();
}
int Connection::server_version() const {
  return is_open() ? PQserverVersion(impl_->connection) : 0;
}
std::string Connection::host() const {
  return is_open() && PQhost(impl_->connection) != nullptr ? PQhost(impl_->connection) : "";
}
std::string Connection::port() const {
  return is_open() && PQport(impl_->connection) != nullptr ? PQport(impl_->connection) : "";
}

}  // namespace pgvigil::pg
