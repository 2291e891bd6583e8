// JSON for people and scripts: indented, keys in the order given.
#pragma once
#include <boost/json.hpp>
#include <string>

namespace pgvigil::cli {

std::string pretty(const boost::json::value& value);  // ends with '\n'

// The member `key` as text for a table: strings without quotes, null and missing as "".
std::string cell(const boost::json::value& row, std::string_view key);

}  // namespace pgvigil::cli
