// Text of unknown origin, made fit for the monitor's database.
#pragma once
#include <string>
#include <string_view>

namespace pgvigil::monitor_api {

// As the monitor keeps it of a reason, in characters (sql/100_keeper_api.sql, report()).
inline constexpr std::size_t longest_reason = 1000;

// The tail of a log, what a program has printed or what another server has said may be in any encoding, and cut
// anywhere. A server refuses a whole statement for one byte that is no UTF-8, so for each of those there is a '?', as
// for control characters other than line breaks and tabs; no U+FFFD, which not every encoding of a database has. Ends
// after `limit` characters.
std::string legible(std::string_view text, std::size_t limit = longest_reason);

}  // namespace pgvigil::monitor_api
