// Who takes writes, as the rows of current_state tell it.
#pragma once
#include <boost/json.hpp>
#include <string>

namespace pgvigil::client {

// The name of the node that takes writes, as it was told to; "" when there is none.
std::string writer_name(const boost::json::array& nodes);
// The name of the node that is told to take writes, also while it changes from one way of doing so to another; "" when
// there is none.
std::string assigned_writer_name(const boost::json::array& nodes);
// Some node takes writes, and every node that can be heard has reached what it was told. A node that is not heard is
// not waited for.
bool settled(const boost::json::array& nodes);
// It has reached what it was told.
bool converged(const boost::json::value& node);

}  // namespace pgvigil::client
