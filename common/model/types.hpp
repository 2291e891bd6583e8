// Strong types for what crosses module borders. Plain values: no I/O.
#pragma once
#include <compare>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pgvigil {

// The root of the exceptions thrown here. `what()` is one complete sentence or clause for a person.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The exit codes of every program (documented in README.md and in --help). After bad_arguments, bad_config and dropped
// systemd does not restart a keeper (packaging/systemd).
enum class ExitCode : int {
  ok = 0,
  bad_arguments = 1,  // bad arguments, or the request was refused
  bad_config = 2,
  bad_state = 3,  // the keeper's state file cannot be used; for `status`: not running
  sql = 4,        // the local PostgreSQL answered with an error
  postgres = 5,   // PostgreSQL could not be started, stopped, or is not ready
  monitor = 6,    // the monitor cannot be reached or answered with an error
  keeper = 8,     // the daemon could not be told to stop
  reload = 9,     // the daemon could not be told to read its configuration again
  internal = 12,  // also: a wait ran out of time
  dropped = 121,
};

// An error that says what happened, why, and what to do, and how the program ends because of it.
class UserError : public Error {
 public:
  UserError(ExitCode exit_code, const std::string& what_and_why, std::string what_to_do = {})
      : Error(what_and_why), code(exit_code), hint(std::move(what_to_do)) {}
  ExitCode code;
  std::string hint;
};

template <class Tag, class Rep>
struct Strong {
  Rep value{};
  friend auto operator<=>(const Strong&, const Strong&) = default;
};

using NodeId = Strong<struct NodeIdTag, std::int64_t>;
// Raised by every promotion; orders of an older term are refused. 0: before the first node.
using Term = Strong<struct TermTag, std::int64_t>;
using Timeline = Strong<struct TimelineTag, std::uint32_t>;

// A position in the WAL, in bytes; 0 is "unknown".
struct Lsn {
  std::uint64_t value{};
  friend auto operator<=>(const Lsn&, const Lsn&) = default;
};

// "16/B374D848", as PostgreSQL prints it.
std::string to_string(Lsn lsn);
// nullopt when `text` is not of that form.
std::optional<Lsn> parse_lsn(std::string_view text);

}  // namespace pgvigil
