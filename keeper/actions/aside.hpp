// WAL that only this node has is kept before a rewind or a base backup replaces it: what clients were never told to be
// safe may still be worth reading (pg_waldump).
#pragma once
#include <boost/asio/awaitable.hpp>

#include "common/model/history.hpp"
#include "keeper/actions/node.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

// Copies the segments that lead from `fork`, where this node left its upstream's history, to `local`, on all timelines
// in between, with the timelines' histories and a note, to <state directory>/diverged/<number>; the newest `kept_sets`
// sets stay. Nothing to do when there is no such WAL, or one of the sets holds it: what follows may fail and be tried
// again for ever, and must not push out what was kept at earlier incidents. The server is stopped. Throws
// pgvigil::Error when it cannot (no space): then nothing may be replaced.
asio::awaitable<void> keep_aside(const Node& node, const WalPosition& local, Lsn fork, Progress progress);
inline constexpr int kept_sets = 3;

}  // namespace pgvigil::keeper
