// pg_rewind, with what it needs and what it forgets.
#pragma once
#include <boost/asio/awaitable.hpp>

#include "common/postgres/instance.hpp"
#include "keeper/actions/upstream_sql.hpp"

namespace pgvigil::keeper {

// pg_rewind looks at the source's control file, which shows a new timeline only after its first checkpoint: throws
// pgvigil::Error until then.
asio::awaitable<void> wait_for_checkpoint(const Node& node, const Peer& upstream, Timeline timeline);
// pg_rewind needs a session like any client's. When none comes free in time the clients may be waiting for this very
// node: a base backup needs none.
asio::awaitable<bool> has_free_session(const Node& node, const Peer& upstream, Progress progress);

// Rewinds a stopped PGDATA that has parted from its upstream. False: it is not to be trusted any more, a base
// backup has to follow.
asio::awaitable<bool> rewind(const Node& node, postgres::Instance& instance, const Peer& upstream,
                             const UpstreamIdentity& identity, Progress progress);

}  // namespace pgvigil::keeper
