// What a data directory says of its WAL while no server answers for it.
#pragma once
#include <boost/asio/awaitable.hpp>

#include "common/postgres/instance.hpp"
#include "keeper/fsm/prepare.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

struct Stopped {
  postgres::ControlData control;
  LocalPosition local;
  Lsn recovery_begins;  // which WAL is read first: of the checkpoint, or of the copy's beginning
};
// After a crash the WAL is read to its end (pg_waldump), for the control file says only where its recovery ends at the
// earliest. The server may be starting. Throws pgvigil::Error.
asio::awaitable<Stopped> read_stopped(const postgres::Instance& instance);

}  // namespace pgvigil::keeper
