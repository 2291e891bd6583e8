// How the others reach this node's PostgreSQL. They are told to encrypt, and let in only so, once this node has reached
// itself in that way: a certificate that is wrong cuts nobody off. The other way round they are told first.
#include <algorithm>

#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

constexpr pg::Millis first_pause{200};
constexpr pg::Millis longest_pause{5000};

}  // namespace

std::string Keeper::wanted_sslmode() const {
  return node_.config.ssl ? node_.config.ssl_mode : unencrypted;
}

asio::awaitable<void> Keeper::prove_tls() {
  std::string announced;
  pg::Millis pause = first_pause;
  while (!finished_) {
    co_await os::sleep_for(pause);
    const std::string wanted = wanted_sslmode();
    if (wanted == unencrypted || wanted == core_.state().sslmode || !core_.pg_answering()) {
      pause = first_pause;
      continue;
    }
    std::string failure;
    try {
      co_await reach_itself(wanted);
      if (wanted != wanted_sslmode()) continue;
      keep(core_.reached_by(wanted));
      log::info("PostgreSQL is reached by sslmode={}", wanted);
      reconcile_now_.set();
      report_now_.set();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty() && failure != announced)
      log::warn("PostgreSQL is not reached by sslmode={}; the others go on by {}: {}", wanted, core_.state().sslmode,
                failure);
    // Each attempt is a session, and a line in PostgreSQL's log, for as long as the certificate is wrong.
    pause = failure.empty() || failure != announced ? first_pause : std::min(pause * 2, longest_pause);
    announced = failure;
  }
}

asio::awaitable<void> Keeper::reach_itself(const std::string& sslmode) {
  Peer self;
  self.host = node_.config.hostname;
  self.port = node_.config.port;
  self.sslmode = sslmode;
  const std::string conninfo = peer_conninfo(node_, self, probe_role, "postgres");
  try {
    co_await pg::Connection::connect(conninfo, pg::Millis{2000});
  } catch (const pg::ConnectionError& error) {
    // pg_hba.conf need not let it in from here: whoever is told so is in an encrypted session already.
    if (error.kind != pg::ConnectionError::Kind::rejected) throw;
  }
}

asio::awaitable<void> Keeper::say_sslmode(pg::Connection& monitor, std::string& said) {
  const std::string sslmode = wanted_sslmode() == unencrypted ? unencrypted : core_.state().sslmode;
  if (said == sslmode && sslmode == core_.state().sslmode) co_return;
  std::string failure;
  try {
    const bool heard = co_await monitor_api::say_sslmode(monitor, node_.id, sslmode);
    if (heard) said = sslmode;
  } catch (const pg::SqlError& error) {
    failure = error.what();
  }
  if (!failure.empty()) log::debug("the monitor does not take the sslmode {}: {}", sslmode, failure);
  if (said != sslmode || sslmode == core_.state().sslmode) co_return;
  keep(core_.reached_by(sslmode));
  reconcile_now_.set();
}

}  // namespace pgvigil::keeper
