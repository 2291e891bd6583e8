#include "monitor/fsm/waits.hpp"

#include <doctest/doctest.h>

using namespace pgvigil;
using fsm::Explanation;
using fsm::Waits;

namespace {

Explanation choice(const std::string& missing, const std::string& position = "0/1") {
  return {std::nullopt, 311, "no node may take over without loss: " + missing + " must be heard",
          "choose n3 at " + position};
}

}  // namespace

TEST_CASE("what needs a person is told when it has lasted, and once") {
  Waits waits;
  waits.saw({choice("n2")}, Millis{1000});
  CHECK(waits.due(Millis{5999}).empty());
  REQUIRE(waits.due(Millis{6000}).size() == 1);
  waits.told(waits.due(Millis{6000}), Millis{6000});
  waits.saw({choice("n2", "0/2")}, Millis{7000});  // the figures of the advice move on
  CHECK(waits.due(Millis{900000}).empty());
  SUBCASE("somebody else is missing: not at once") {
    waits.saw({choice("n1")}, Millis{20000});
    CHECK(waits.due(Millis{65999}).empty());
    CHECK(waits.due(Millis{66000}).size() == 1);
  }
  SUBCASE("it has gone, and comes back") {
    waits.saw({}, Millis{20000});
    waits.saw({choice("n2")}, Millis{30000});
    CHECK(waits.due(Millis{34999}).empty());
    CHECK(waits.due(Millis{35000}).size() == 1);
  }
}

TEST_CASE("who is missing may change while it has not been told: the wait goes on") {
  Waits waits;
  waits.saw({choice("n1, n2")}, Millis{1000});
  waits.saw({choice("n2")}, Millis{5000});
  REQUIRE(waits.due(Millis{6000}).size() == 1);
  CHECK(waits.due(Millis{6000})[0].waiting_for.find("n1") == std::string::npos);
}

TEST_CASE("what goes on by itself, and what an operator has wanted, is not told") {
  Waits waits;
  Explanation by_itself = choice("n2");
  by_itself.command.clear();
  const Explanation maintenance{NodeId{2}, 109, "it is in maintenance", "`pgvigil disable maintenance`"};
  waits.saw({by_itself, maintenance}, Millis{0});
  CHECK(waits.due(Millis{900000}).empty());
}
