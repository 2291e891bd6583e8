// JSON for people and scripts: indented, keys in the order given.
#pragma once
#include <boost/json.hpp>
#include <string>

namespace pgvigil::cli {

std::string pretty(const boost::json::value& value);  // ends with '\n'

// The member `key` as text for a table: strings without quotes, null and missing as "".
std::string cell(const boost::json::value& row, std::string_view key);

// "2024-05-01T12:00:00.123456+02:00" as "2024-05-01 12:00:00" where the clock is two hours before Greenwich's: the
// operator's time, whatever the monitor's PostgreSQL calls its own. What is no such time is given back as it is.
std::string local_time(const std::string& iso_time);

}  // namespace pgvigil::cli
