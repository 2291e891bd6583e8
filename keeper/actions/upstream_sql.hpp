// What is asked of the node that a standby streams from, or is copied from.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <string>

#include "common/model/goal.hpp"
#include "common/pg/connection.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/fsm/prepare.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

inline constexpr pg::Millis upstream_wait{5000};

// All of these throw pg::ConnectionError / pg::SqlError.

// Asked over the replication protocol: its sessions have places of their own (max_wal_senders), when clients that wait
// for this very node have taken all others. It knows no parameters.
asio::awaitable<pg::Result> ask(const Node& node, const Peer& upstream, std::string sql);
asio::awaitable<UpstreamIdentity> identify(const Node& node, const Peer& upstream);
// Its walsender can send the WAL from `from` on. Asked for by the file's name: the walreceiver's complaint is only in
// the log.
asio::awaitable<bool> can_send(const Node& node, const Peer& upstream, const UpstreamIdentity& identity, Lsn from,
                               std::uint64_t segment_size);

}  // namespace pgvigil::keeper
