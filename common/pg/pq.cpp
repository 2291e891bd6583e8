#include "common/pg/pq.hpp"

#include <cerrno>
#include <cstring>

#include "common/pg/conninfo.hpp"

namespace pgvigil::pg {

Result::Result(void* pg_result) : result_(pg_result, [](void* result) { PQclear(static_cast<PGresult*>(result)); }) {}

namespace {
const PGresult* raw(const std::shared_ptr<void>& result) {
  return static_cast<const PGresult*>(result.get());
}
}  // namespace

int Result::rows() const {
  return PQntuples(raw(result_));
}
int Result::columns() const {
  return PQnfields(raw(result_));
}
std::string Result::column_name(int column) const {
  return PQfname(raw(result_), column);
}

std::optional<std::string> Result::maybe(int row, std::string_view column) const {
  const int index = PQfnumber(raw(result_), ("\"" + std::string(column) + "\"").c_str());
  if (index < 0) throw Error("the answer has no column " + std::string(column));
  if (row < 0 || row >= rows()) throw Error("the answer has no row " + std::to_string(row));
  if (PQgetisnull(raw(result_), row, index) != 0) return std::nullopt;
  return std::string(PQgetvalue(raw(result_), row, index),
                     static_cast<std::size_t>(PQgetlength(raw(result_), row, index)));
}

std::string Result::text(int row, std::string_view column) const {
  return maybe(row, column).value_or(std::string());
}

std::int64_t Result::integer(int row, std::string_view column) const {
  const std::string value = text(row, column);
  try {
    std::size_t used = 0;
    const long long number = std::stoll(value, &used);
    if (used == value.size()) return number;
  } catch (const std::exception&) {
    // reported below, with the column's name
  }
  throw Error("column " + std::string(column) + " holds no integer but '" + value + "'");
}

bool Result::boolean(int row, std::string_view column) const {
  const std::string value = text(row, column);
  if (value != "t" && value != "f")
    throw Error("column " + std::string(column) + " holds no boolean but '" + value + "'");
  return value == "t";
}

namespace detail {

ConnectParams::ConnectParams(const std::string& conninfo) {
  ConninfoMap values = parse_conninfo(conninfo);
  values.try_emplace("application_name", "pgvigil");
  values.try_emplace("client_encoding", "UTF8");
  // A peer whose host has gone must not hold us for the two hours of the system's defaults.
  values.try_emplace("keepalives_idle", "5");
  values.try_emplace("keepalives_interval", "2");
  values.try_emplace("keepalives_count", "3");
  values.try_emplace("tcp_user_timeout", "10000");
  storage_.reserve(values.size() * 2);
  for (const auto& [keyword, value] : values) {
    storage_.push_back(keyword);
    keywords_.push_back(storage_.back().c_str());
    storage_.push_back(value);
    values_.push_back(storage_.back().c_str());
  }
  keywords_.push_back(nullptr);
  values_.push_back(nullptr);
}

std::string message_of(const PGconn* connection) {
  std::string message = PQerrorMessage(connection);
  while (!message.empty() && message.back() == '\n') message.pop_back();
  for (std::size_t at = 0; (at = message.find('\n', at)) != std::string::npos;) message.replace(at, 1, "; ");
  return message;
}

ConnectionError connect_error(const PGconn* connection) {
  const std::string message = message_of(connection);
  const auto says = [&](const std::string& text) { return message.find(text) != std::string::npos; };
  // libpq tells the operating system's reason only in words; strerror() gives the same words in the same locale.
  ConnectionError::Kind kind = ConnectionError::Kind::other;
  if (says("FATAL:")) {
    kind = ConnectionError::Kind::rejected;
  } else if (says(std::strerror(ECONNREFUSED)) || says(std::strerror(ENOENT))) {
    kind = ConnectionError::Kind::refused;
  } else if (says(std::strerror(ETIMEDOUT)) || says("timeout expired")) {
    kind = ConnectionError::Kind::timeout;
  } else if (says(std::strerror(ECONNRESET)) || says("server closed the connection") || says("EOF detected") ||
             says("unexpected eof") || says("closed unexpectedly")) {
    kind = ConnectionError::Kind::lost;
  } else if (says("SSL error:") || says("does not support SSL") || says("server certificate") ||
             says("root certificate")) {
    kind = ConnectionError::Kind::tls;
  }
  return {kind, message};
}

void check(const PGresult* result) {
  switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_EMPTY_QUERY: return;
    default: break;
  }
  const auto field = [result](int code) -> std::string {
    const char* text = PQresultErrorField(result, code);
    return text == nullptr ? "" : text;
  };
  std::string message = field(PG_DIAG_MESSAGE_PRIMARY);
  if (message.empty()) message = PQresultErrorMessage(result);
  if (message.empty()) message = "unexpected answer: " + std::string(PQresStatus(PQresultStatus(result)));
  throw SqlError(field(PG_DIAG_SQLSTATE), message, field(PG_DIAG_MESSAGE_HINT));
}

std::vector<const char*> param_values(const std::vector<Param>& params) {
  std::vector<const char*> values;
  values.reserve(params.size());
  for (const Param& param : params) values.push_back(param ? param->c_str() : nullptr);
  return values;
}

}  // namespace detail
}  // namespace pgvigil::pg
