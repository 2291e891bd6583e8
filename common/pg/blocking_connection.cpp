#include <poll.h>

#include "common/pg/pq.hpp"

namespace pgvigil::pg {

using Clock = std::chrono::steady_clock;

namespace {

// False when `deadline` passed first.
bool wait_for(int fd, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<Millis>(deadline - Clock::now());
    if (left.count() <= 0) return false;
    pollfd entry{fd, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left.count()));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw Error("poll failed");
  }
}

}  // namespace

struct BlockingConnection::Impl {
  std::optional<std::string> attempt(const std::string& conninfo, Millis timeout);

  PGconn* connection{nullptr};
  ~Impl() {
    if (connection != nullptr) PQfinish(connection);
  }
};

// Connected (nullopt), or what to try next.
std::optional<std::string> BlockingConnection::Impl::attempt(const std::string& conninfo, Millis timeout) {
  const auto deadline = Clock::now() + timeout;
  const detail::ConnectParams params(conninfo);
  if (connection != nullptr) PQfinish(connection);
  connection = PQconnectStartParams(params.keywords(), params.values(), 0);
  if (connection == nullptr) throw ConnectionError(ConnectionError::Kind::other, "out of memory");
  PQsetNoticeProcessor(
      connection, [](void*, const char*) {}, nullptr);
  short events = POLLOUT;
  for (;;) {
    if (PQstatus(connection) == CONNECTION_BAD) throw detail::connect_error(connection);
    if (!wait_for(PQsocket(connection), events, deadline)) {
      const bool reached = PQstatus(connection) != CONNECTION_STARTED;
      auto left = reached ? std::nullopt : detail::behind_silent_address(conninfo, connection);
      if (!left) throw detail::no_answer_within(timeout);
      return left;
    }
    const ConnStatusType before = PQstatus(connection);
    const PostgresPollingStatusType status = PQconnectPoll(connection);
    if (status == PGRES_POLLING_OK) return std::nullopt;
    if (status == PGRES_POLLING_FAILED) throw detail::connect_error(connection, before);
    events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
  }
}

BlockingConnection::BlockingConnection(const std::string& conninfo, Millis timeout) : impl_(std::make_unique<Impl>()) {
  for (std::optional<std::string> next = conninfo; next;) next = impl_->attempt(*next, timeout);
}

BlockingConnection::~BlockingConnection() = default;

Result BlockingConnection::query(const std::string& sql, const std::vector<Param>& params, Millis timeout) {
  PGconn* connection = impl_->connection;
  const auto deadline = Clock::now() + timeout;
  const std::vector<const char*> values = detail::param_values(params);
  const int sent = params.empty() ? PQsendQuery(connection, sql.c_str())
                                  : PQsendQueryParams(connection, sql.c_str(), static_cast<int>(params.size()), nullptr,
                                                      values.data(), nullptr, nullptr, 0);
  if (sent == 0) throw ConnectionError(ConnectionError::Kind::lost, detail::message_of(connection));
  std::optional<Result> last;
  std::optional<SqlError> failure;
  for (;;) {
    while (PQisBusy(connection) != 0) {
      if (!wait_for(PQsocket(connection), POLLIN, deadline)) {
        throw ConnectionError(ConnectionError::Kind::timeout, "no answer to a query in time");
      }
      if (PQconsumeInput(connection) == 0)
        throw ConnectionError(ConnectionError::Kind::lost, detail::message_of(connection));
    }
    PGresult* raw = PQgetResult(connection);
    if (raw == nullptr) break;
    Result result(raw);
    try {
      detail::check(raw);
      last = result;
    } catch (const SqlError& error) {
      if (!failure) failure = error;
    }
  }
  if (PQstatus(connection) == CONNECTION_BAD)
    throw ConnectionError(ConnectionError::Kind::lost, detail::message_of(connection));
  if (failure) throw SqlError(*failure);
  if (!last) throw Error("the server sent no result");
  return *last;
}

std::optional<Notification> BlockingConnection::wait_notification(Millis timeout) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {
    if (PQconsumeInput(impl_->connection) == 0) {
      throw ConnectionError(ConnectionError::Kind::lost, detail::message_of(impl_->connection));
    }
    if (PGnotify* raw = PQnotifies(impl_->connection)) {
      Notification notification{raw->relname, raw->extra};
      PQfreemem(raw);
      return notification;
    }
    if (!wait_for(PQsocket(impl_->connection), POLLIN, deadline)) return std::nullopt;
  }
}

}  // namespace pgvigil::pg
