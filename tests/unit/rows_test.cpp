// What the command line makes of the rows that the monitor sends.
#include <doctest/doctest.h>

#include "common/cli/client/writer.hpp"

namespace json = boost::json;
using namespace pgvigil;

namespace {

json::value node(const char* name, const char* current, const char* assigned, json::value heard = true) {
  return json::object{
      {"nodename", name}, {"current_group_state", current}, {"assigned_group_state", assigned}, {"heard", heard}};
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
