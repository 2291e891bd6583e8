// What connection.cpp and blocking_connection.cpp share: parameters, results and errors of libpq. Internal to this
// folder.
#pragma once
#include <libpq-fe.h>

#include <optional>
#include <string>
#include <vector>

#include "common/pg/connection.hpp"

namespace pgvigil::pg::detail {

// The keyword and value arrays of PQconnectStartParams, with our defaults filled in where `conninfo` says nothing.
class ConnectParams {
 public:
  explicit ConnectParams(const std::string& conninfo);
  const char* const* keywords() const { return keywords_.data(); }
  const char* const* values() const { return values_.data(); }

 private:
  std::vector<std::string> storage_;
  std::vector<const char*> keywords_;
  std::vector<const char*> values_;
};

// After an address has been silent for too long: connection parameters of those that libpq would have tried next (the
// other addresses of a name, the other hosts); nullopt when there are none. libpq passes over a refusal by itself; its
// connect_timeout counts only where it waits itself, which it does not do for us. Resolves names, and blocks meanwhile.
std::optional<std::string> behind_silent_address(const std::string& conninfo, const PGconn* connection);

// libpq's message without its trailing newline; line breaks become "; ".
std::string message_of(const PGconn* connection);
// `before`: PQstatus() before the PQconnectPoll() that has failed.
ConnectionError connect_error(const PGconn* connection, ConnStatusType before = CONNECTION_BAD);
ConnectionError no_answer_within(Millis patience);
// Throws SqlError when the result is an error.
void check(const PGresult* result);
// The values of query parameters as PQsendQueryParams takes them.
std::vector<const char*> param_values(const std::vector<Param>& params);

}  // namespace pgvigil::pg::detail
