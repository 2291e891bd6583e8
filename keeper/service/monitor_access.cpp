#include "keeper/service/monitor_access.hpp"

#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"

namespace pgvigil::keeper {

namespace {

constexpr pg::Millis reach_limit{2000};  // until the monitor's host is reached

std::string conninfo(const config::Config& config, pg::ConninfoMap more) {
  pg::ConninfoMap values = pg::parse_conninfo(config.monitor_uri);
  for (const auto& [key, value] : more) values[key] = value;
  values.merge(config::shown_certificate(config));
  values.try_emplace("application_name", "pgvigil-keeper");
  values.try_emplace("connect_timeout", "2");
  return pg::to_conninfo(values);
}

asio::awaitable<pg::Connection> enter_as_node(const Node& node, std::string password, pg::Millis answers) {
  const std::string where =
      conninfo(node.config, {{"user", monitor_api::keeper_role(node.id)}, {"password", password}});
  co_return co_await pg::Connection::connect(where, reach_limit, answers);
}

// Nothing when the server refuses the role: whether for its password or because it is full, it says in words only.
asio::awaitable<std::optional<pg::Connection>> try_as_node(const Node& node, std::string& refusal, pg::Millis answers) {
  if (!std::filesystem::exists(node.own_credential())) co_return std::nullopt;
  const std::string password = os::read_secret_file(node.own_credential());
  std::optional<pg::ConnectionError> failure;
  try {
    co_return co_await enter_as_node(node, password, answers);
  } catch (const pg::ConnectionError& error) {
    failure = error;
  }
  if (failure->kind != pg::ConnectionError::Kind::rejected) throw *failure;
  refusal = failure->what();
  co_return std::nullopt;
}

}  // namespace

std::string registration_conninfo(const config::Config& config) {
  if (config.monitor_password_file.empty()) return conninfo(config, {});
  return conninfo(config, {{"password", os::read_secret_file(config.monitor_password_file)}});
}

asio::awaitable<bool> admit(pg::Connection& registration, const Node& node) {
  const bool made = !std::filesystem::exists(node.own_credential());
  const std::string password = made ? os::random_secret() : os::read_secret_file(node.own_credential());
  std::optional<pg::SqlError> refused;
  try {
    co_await monitor_api::admit_keeper(registration, node.id, node.config.hostname, node.config.port, password);
  } catch (const pg::SqlError& error) {
    refused = error;
  }
  // Its number is another node's there: not a word in that one's name, and no order that was meant for it.
  if (refused && refused->sqlstate == "PV002")
    throw pg::ConnectionError(pg::ConnectionError::Kind::rejected, refused->what() + ("; " + refused->hint));
  if (refused) {
    if (refused->sqlstate != "PV404") log::warn("the monitor gives this node no credential: {}", refused->what());
    co_return false;
  }
  if (made) os::write_file_atomic(node.own_credential(), password + "\n", 0600);
  co_return true;
}

asio::awaitable<MonitorAccess> enter_monitor(const Node& node, pg::Millis answers) {
  std::string refusal;
  auto own = co_await try_as_node(node, refusal, answers);
  if (own) co_return MonitorAccess{std::move(*own), true};
  std::string registration;
  try {
    registration = registration_conninfo(node.config);
  } catch (const UserError& error) {
    if (refusal.empty()) throw;
    throw pg::ConnectionError(pg::ConnectionError::Kind::rejected,
                              refusal + "; and it cannot ask for another credential: " + error.what());
  }
  pg::Connection session = co_await pg::Connection::connect(registration, reach_limit, answers);
  const bool admitted = co_await admit(session, node);
  if (admitted) {
    own = co_await try_as_node(node, refusal, answers);
    if (own) co_return MonitorAccess{std::move(*own), true};
    log::warn("goes on with the credential of the registration, for the monitor does not accept this node's: {}",
              refusal);
  }
  co_return MonitorAccess{std::move(session), false};
}

}  // namespace pgvigil::keeper
