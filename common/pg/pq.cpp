#include "common/pg/pq.hpp"

#include <netdb.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

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

namespace {

struct Address {
  std::string host;  // by which it was named; "" when it was not
  std::string numeric;
  std::string port;

  bool is_of(const PGconn* connection) const {
    const auto same = [](const std::string& ours, const char* theirs) { return theirs != nullptr && ours == theirs; };
    return same(host.empty() ? numeric : host, PQhost(connection)) && same(numeric, PQhostaddr(connection)) &&
           (port.empty() || same(port, PQport(connection)));
  }
};

std::vector<std::string> listed(const ConninfoMap& values, const char* keyword) {
  const auto found = values.find(keyword);
  return found == values.end() ? std::vector<std::string>() : list_items(found->second);
}

// In the order in which libpq tries them. What cannot be resolved is left as it is.
std::vector<std::string> numeric_addresses(const std::string& host) {
  std::vector<std::string> found;
  if (host.empty() || host.front() == '/' || host.front() == '@') return {""};  // a Unix socket
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* first = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &first) != 0) return {""};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(first, ::freeaddrinfo);
  for (const addrinfo* one = first; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (::getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      found.emplace_back(text);
  }
  return found;
}

std::vector<Address> addresses_in(const ConninfoMap& values) {
  const auto hosts = listed(values, "host");
  const auto numeric = listed(values, "hostaddr");
  const auto ports = listed(values, "port");
  std::vector<Address> addresses;
  for (std::size_t i = 0; i < std::max(hosts.size(), numeric.size()); ++i) {
    Address address;
    if (i < hosts.size()) address.host = hosts[i];
    if (!ports.empty()) address.port = ports[ports.size() == 1 ? 0 : std::min(i, ports.size() - 1)];
    const bool given = i < numeric.size() && !numeric[i].empty();
    for (const std::string& one : given ? std::vector{numeric[i]} : numeric_addresses(address.host)) {
      address.numeric = one;
      addresses.push_back(address);
    }
  }
  return addresses;
}

}  // namespace

std::optional<std::string> behind_silent_address(const std::string& conninfo, const PGconn* connection) {
  ConninfoMap values = parse_conninfo(conninfo);
  const auto addresses = addresses_in(values);
  auto next =
      std::find_if(addresses.begin(), addresses.end(), [&](const Address& one) { return one.is_of(connection); });
  if (next == addresses.end() || ++next == addresses.end()) return std::nullopt;
  for (const char* keyword : {"host", "hostaddr", "port"}) values.erase(keyword);
  for (auto one = next; one != addresses.end(); ++one) {
    const char* comma = one == next ? "" : ",";
    values["host"] += comma + one->host;
    values["hostaddr"] += comma + one->numeric;
    values["port"] += comma + one->port;
  }
  return to_conninfo(values);
}

std::string message_of(const PGconn* connection) {
  std::string message = PQerrorMessage(connection);
  while (!message.empty() && message.back() == '\n') message.pop_back();
  for (std::size_t at = 0; (at = message.find('\n', at)) != std::string::npos;) message.replace(at, 1, "; ");
  return message;
}

ConnectionError connect_error(const PGconn* connection, ConnStatusType before) {
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
  } else if ((before == CONNECTION_AWAITING_RESPONSE || before == CONNECTION_AUTH_OK) && says(":  ")) {
    // The server's own words, in its own language (lc_messages): libpq writes "SEVERITY:  " before them, and before
    // nothing that is not the server's (fe-protocol3.c, pqBuildErrorMessage3()).
    kind = ConnectionError::Kind::rejected;
  }
  return {kind, message};
}

ConnectionError no_answer_within(Millis patience) {
  return {ConnectionError::Kind::timeout, "no answer within " + std::to_string(patience.count()) + " ms"};
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
