// What both daemons do around their loop: refuse root, tell systemd, turn signals into calls.
#pragma once
#include <boost/asio/io_context.hpp>
#include <functional>
#include <string>

namespace pgvigil::os {

// PostgreSQL refuses to run as root, and so do the daemons that own one. Throws UserError(bad_arguments).
void refuse_root();

// Removes PGPASSWORD, PGHOST and the other variables that libpq and PostgreSQL's programs would prefer to our files. A
// daemon's connections must not depend on the shell that started it.
void clear_postgres_environment();

// As many open files as the system's administrator allows: the monitor has a probe's session to every node.
void raise_file_limit();

// READY=1, RELOADING=1, STOPPING=1, ... to $NOTIFY_SOCKET (sd_notify(3)); nothing without one.
void notify_systemd(const std::string& state);

// Calls `handler` with SIGTERM, SIGINT, SIGQUIT or SIGHUP, for as long as `context` runs. SIGPIPE is ignored.
void handle_signals(boost::asio::io_context& context, std::function<void(int)> handler);

}  // namespace pgvigil::os
