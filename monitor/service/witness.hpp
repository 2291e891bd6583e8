// A line beside the monitor's database, in its state directory: which database it is, and how many decisions it holds.
// A database with fewer was restored from a backup, another one has replaced it: its memory is not believed (rules
// 601-699). What this cannot see: a machine that was put back as a whole, with its state directory. Then the keepers,
// who know more, say so.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/pg/connection.hpp"

namespace pgvigil::monitor {

struct Witness {
  std::string system_identifier;
  std::int64_t generation{0};  // of pgvigil.memory
  friend bool operator==(const Witness&, const Witness&) = default;
};

// Why `now` is not what `before` has become; nullopt when it is.
std::optional<std::string> not_a_continuation(const std::optional<Witness>& before, const Witness& now);

boost::asio::awaitable<Witness> take_witness(pg::Connection& database);

// nullopt when there is none, or it cannot be read: both mean that nothing is known of the past.
std::optional<Witness> load_witness(const std::filesystem::path& file);
// Atomic, but not durable (it may get lost with the machine): it stands in the way of decisions. Throws Error when it
// cannot be written, and then there is none: an older one would vouch for an older database.
void save_witness(const std::filesystem::path& file, const Witness& witness);

}  // namespace pgvigil::monitor
