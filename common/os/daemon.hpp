// What both daemons do around their loop: refuse root, turn signals into calls, start anew in place.
#pragma once
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace pgvigil::os {

// PostgreSQL refuses to run as root, and so do the daemons that own one. Throws UserError(bad_arguments).
void refuse_root();

// As root, this process becomes the user whom `path` belongs to: what it writes there stays that user's, whose daemon
// has to read it. Nothing happens to any other user, nor when `path` is root's or not there. Throws Error.
void become_owner_of(const std::filesystem::path& path);

// Removes PGPASSWORD, PGHOST and the other variables that libpq and PostgreSQL's programs would prefer to our files. A
// daemon's connections must not depend on the shell that started it.
void clear_postgres_environment();

// As many open files as the system's administrator allows: the monitor has a probe's session to every node.
void raise_file_limit();

// The file of the running program. Asked at the start: an upgrade puts another one in its place.
std::filesystem::path this_program();
// This process becomes `program`, with the same pid, environment and children. Signals that come from now on wait for
// its handle_signals(). Returns only by throwing Error.
[[noreturn]] void start_anew(const std::filesystem::path& program, std::vector<std::string> arguments);

// Calls `handler` with SIGTERM, SIGINT, SIGQUIT, SIGHUP or SIGUSR2, for as long as `context` runs. SIGPIPE is ignored.
void handle_signals(boost::asio::io_context& context, std::function<void(int)> handler);
// The last ones for `handler`: those that have come, while nobody runs `context` any more. Later ones wait.
void last_signals(boost::asio::io_context& context);

}  // namespace pgvigil::os
