// What the command line makes of the rows that the monitor sends.
#include <doctest/doctest.h>

#include "common/cli/client/fresh_events.hpp"
#include "common/cli/client/writer.hpp"

namespace json = boost::json;
using namespace pgvigil;

namespace {

json::value node(const char* name, const char* current, const char* assigned, json::value heard = true) {
  return json::object{
      {"nodename", name}, {"current_group_state", current}, {"assigned_group_state", assigned}, {"heard", heard}};
}

json::array events(std::initializer_list<int> ids) {
  json::array rows;
  for (const int id : ids) rows.push_back(json::object{{"eventid", id}});
  return rows;
}

}  // namespace

TEST_CASE("who takes writes, and who is told to") {
  const json::array at_rest{node("a", "secondary", "secondary"), node("b", "primary", "primary")};
  CHECK(client::writer_name(at_rest) == "b");
  CHECK(client::assigned_writer_name(at_rest) == "b");
  // From one writing state to another: it is the primary all the same, and a failover has to end with somebody else.
  const json::array between{node("a", "secondary", "secondary"), node("b", "wait_primary", "primary")};
  CHECK(client::writer_name(between).empty());
  CHECK(client::assigned_writer_name(between) == "b");
  const json::array handed_over{node("a", "prepare_promotion", "wait_primary"), node("b", "demoted", "demoted")};
  CHECK(client::assigned_writer_name(handed_over) == "a");
  CHECK(client::assigned_writer_name({node("a", "report_lsn", "report_lsn")}).empty());
}

TEST_CASE("a group is at rest when everybody who is heard is where it should be") {
  const json::value primary = node("b", "primary", "primary");
  CHECK(client::settled({node("a", "secondary", "secondary"), primary}));
  CHECK_FALSE(client::settled({node("a", "catchingup", "secondary"), primary}));
  CHECK(client::settled({node("a", "catchingup", "secondary", false), primary}));
  CHECK_FALSE(client::settled({node("a", "secondary", "secondary")}));
  // An older monitor does not say who is heard.
  CHECK_FALSE(client::settled({node("a", "catchingup", "secondary", nullptr), primary}));
}

TEST_CASE("each event once, also one that was written down before others and came later") {
  client::FreshEvents fresh;
  CHECK(fresh.of(events({1, 2, 5}), 4) == events({1, 2, 5}));
  CHECK(fresh.of(events({1, 2, 5}), 4).empty());
  CHECK(fresh.of(events({2, 4, 5, 6}), 4) == events({4, 6}));
  CHECK(fresh.of(events({2, 3, 5, 6}), 4) == events({3}));
  // What is older than a full picture is none of those that come: others were deleted.
  CHECK(fresh.of(events({1, 2, 6, 7}), 4) == events({7}));
}
