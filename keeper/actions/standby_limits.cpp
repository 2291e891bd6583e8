#include "keeper/actions/standby_limits.hpp"

#include <charconv>
#include <vector>

#include "common/postgres/configured.hpp"

namespace pgvigil::keeper {

namespace asio = boost::asio;

namespace {

std::optional<int> number_in(const std::string& text) {
  int number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc{} ? std::optional(number) : std::nullopt;
}

}  // namespace

postgres::Settings lacking_limits(const std::map<std::string, int>& needed, const postgres::Settings& configured) {
  postgres::Settings lacking;
  for (const auto& [name, least] : needed) {
    const auto found = configured.find(name);
    const auto value = found == configured.end() ? std::nullopt : number_in(found->second);
    if (value && *value < least) lacking[name] = std::to_string(least);
  }
  return lacking;
}

asio::awaitable<postgres::Settings> lacking_limits(const postgres::Instance& instance) {
  const postgres::ControlData control = co_await instance.control_data();
  const postgres::InstanceSettings& of = instance.settings();
  postgres::Settings configured;
  for (const auto& [name, least] : control.limits) {
    configured[name] = co_await postgres::configured(of.bindir, of.pgdata, instance.config_file(), name);
  }
  co_return lacking_limits(control.limits, configured);
}

asio::awaitable<postgres::Settings> lacking_limits(const postgres::Instance& instance, pg::Connection& local) {
  const postgres::ControlData control = co_await instance.control_data();
  std::vector<pg::Param> names;
  std::string list;
  for (const auto& [name, least] : control.limits) list += (list.empty() ? "{" : ",") + name;
  names.emplace_back(list + "}");
  const pg::Result rows = co_await local.query("SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])",
                                               names, pg::Millis{2000});
  postgres::Settings in_force;
  for (int row = 0; row < rows.rows(); ++row) in_force[rows.text(row, "name")] = rows.text(row, "setting");
  co_return lacking_limits(control.limits, in_force);
}

}  // namespace pgvigil::keeper
