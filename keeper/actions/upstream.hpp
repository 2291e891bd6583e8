// Copying and rewinding from another node. Rule S4: nothing is replaced before the divergence is established and the
// upstream is proven to be of the same system and to hold the group's history.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/model/goal.hpp"
#include "keeper/actions/archive.hpp"
#include "keeper/actions/node.hpp"
#include "keeper/fsm/prepare.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

struct Preparing {
  Peer upstream;
  std::optional<LocalPosition> running;  // where a running standby stands
  bool foreign_promotion{false};
  ArchivePatience& patience;  // of this PGDATA, from one preparation to the next
  Progress progress;
  std::function<void()> begins;       // called before anything that is here is overwritten
  std::function<void()> ends;         // called when PGDATA has been rewound or copied, before it counts as whole
  std::optional<WalPosition> fits{};  // out: where the upstream stands, from which PGDATA can stream as it is
};
// Makes PGDATA fit to stream from the upstream: nothing to do, a rewind, or a base backup. PostgreSQL is stopped when
// it has to be. WAL that is only here is kept aside first. Throws pgvigil::Error with the reason when it can't be done
// now; it can be called again.
asio::awaitable<void> prepare_standby(const Node& node, postgres::Instance& instance, Preparing& preparing);

}  // namespace pgvigil::keeper
