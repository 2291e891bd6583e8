// How rows of the monitor look to a person.
#pragma once
#include <boost/json.hpp>
#include <string>

namespace pgvigil::client {

namespace json = boost::json;

std::string state_table(const json::array& nodes);  // and below it, one line for each node that is held up by something
// Rows of pgvigil.why(): all of them as a table; only those where an operator can do something.
std::string why_text(const json::array& rows);
std::string advice_text(const json::array& rows);
std::string event_table(const json::array& events);
std::string event_line(const json::value& event);

// Of the rows of pgvigil.takeover(), one for each that told something: as an object, and that as text.
json::object takeover_object(const json::array& rows);
std::string takeover_text(const json::object& takeover);

}  // namespace pgvigil::client
