// How a keeper gets in at its monitor: by a credential of its own, which speaks for this node only. Where the monitor
// does not have that (the node is new there, or the monitor lost its memory), by the one that nodes are registered
// with.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <string>

#include "common/pg/connection.hpp"
#include "keeper/actions/node.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

// The URI of the configuration with the password from its file, as libpq keywords. Secret: never logged.
std::string registration_conninfo(const config::Config& config);

struct MonitorAccess {
  pg::Connection session;
  bool own{false};
};
// Throws ConnectionError, or UserError when a password file cannot be used.
asio::awaitable<MonitorAccess> enter_monitor(const Node& node, pg::Millis answers);
// Over a session with the registration's credential: the monitor gets the node's own one. It is made here, once, kept
// in a file of mode 0600, and the monitor sees a verifier of it only. False: there is none (the monitor does not know
// the node yet, or cannot; the latter is logged). Throws ConnectionError(rejected) where its number is another node's.
asio::awaitable<bool> admit(pg::Connection& registration, const Node& node);

}  // namespace pgvigil::keeper
