// What connection.cpp and blocking_connection.cpp share: parameters, results and errors of libpq. Internal to this
// folder.
#pragma once
#include <libpq-fe.h>

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

// libpq's message without its trailing newline; line breaks become "; ".
std::string message_of(const PGconn* connection);
ConnectionError connect_error(const PGconn* connection);
// Throws SqlError when the result is an error.
void check(const PGresult* result);
// The values of query parameters as PQsendQueryParams takes them.
std::vector<const char*> param_values(const std::vector<Param>& params);

}  // namespace pgvigil::pg::detail
