// A standby needs as much room for sessions, transactions and locks as its primary has. Where it reads in the WAL that
// the primary has more now, PostgreSQL pauses the replay (before version 14 it ends), promotes no more, and once it has
// stopped does not start again (xlogrecovery.c, RecoveryRequiresIntParameter()).
#pragma once
#include <boost/asio/awaitable.hpp>
#include <map>
#include <string>

#include "common/pg/connection.hpp"
#include "common/postgres/config_files.hpp"
#include "common/postgres/instance.hpp"

namespace pgvigil::keeper {

// Settings of which `configured` has less than the control file asks for, as they have to be; all of them numbers.
postgres::Settings lacking_limits(const std::map<std::string, int>& needed, const postgres::Settings& configured);

// Of a standby that is about to be started.
boost::asio::awaitable<postgres::Settings> lacking_limits(const postgres::Instance& instance);
// Of one that runs.
boost::asio::awaitable<postgres::Settings> lacking_limits(const postgres::Instance& instance, pg::Connection& local);

}  // namespace pgvigil::keeper
