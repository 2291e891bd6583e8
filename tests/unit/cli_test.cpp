#include "common/cli/cli.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>
#include <sstream>

#include "common/cli/json_text.hpp"
#include "common/cli/manual.hpp"
#include "common/cli/table.hpp"
#include "common/pg/connection.hpp"

using namespace pgvigil;

namespace {

const std::vector<cli::Option> options{{"name", "NODE", "a name"},
                                       {"pgport", "PORT", "a port"},
                                       {"force", "", "a flag"},
                                       {"verbose,v", "", "more"},
                                       {"pgdata", "DIR", "directory", {"PGVIGIL_TEST_DIR", "PGVIGIL_TEST_DIR2"}}};

// What goes to a stream while this lives.
class Captured {
 public:
  explicit Captured(std::ostream& stream) : stream_(stream), before_(stream.rdbuf(text_.rdbuf())) {}
  ~Captured() { stream_.rdbuf(before_); }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::ostream& stream_;
  std::streambuf* before_;
};

std::string refusal(const std::vector<std::string>& args) {
  try {
    cli::parse_options(options, args);
  } catch (const UserError& error) {
    CHECK(error.code == ExitCode::bad_arguments);
    return error.what();
  }
  return {};
}

struct Called {
  std::string command;
  cli::Args args;
};

cli::Program program(Called& called) {
  const auto record = [&called](const char* name) {
    return [&called, name](const cli::Args& args) {
      called = {name, args};
      return 0;
    };
  };
  cli::Command through{"create node", "hand over", {}, {}, record("create node")};
  through.pass_through = true;
  return {"tool",
          "a tool",
          {{"show state", "the states", options, {}, record("show state")},
           {"show state full", "more states", options, {}, record("show state full")},
           {"set priority", "a number", options, {"N", "[WHY]"}, record("set priority")},
           {"version", "the version", {}, {}, record("version")},
           through},
          {{"quiet,q", "", "less"}}};
}

std::string dispatch_refusal(const std::vector<std::string>& args) {
  Called called;
  try {
    cli::dispatch(program(called), args);
  } catch (const UserError& error) {
    CHECK(error.code == ExitCode::bad_arguments);
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("options: values, flags, counts, and what is not an option") {
  const cli::Args args =
      cli::parse_options(options, {"--name", "a", "first", "--pgport=5433", "-vv", "--name", "b", "--", "--force"});
  CHECK(args.get("name") == "b");
  CHECK(args.integer("pgport", 1, 1, 65535) == 5433);
  CHECK(args.count("verbose") == 2);
  CHECK_FALSE(args.has("force"));
  CHECK(args.arguments == std::vector<std::string>{"first", "--force"});
  CHECK(args.get("pgdata", "fallback") == "fallback");
  CHECK_THROWS_AS(args.require("pgdata"), UserError);
}

TEST_CASE("options: refused with the option's name") {
  CHECK(refusal({"--nmae", "x"}).find("--nmae") != std::string::npos);
  CHECK(refusal({"--name"}).find("--name") != std::string::npos);
  CHECK(refusal({"--force=yes"}).find("--force") != std::string::npos);
  CHECK(refusal({"--nam", "x"}).find("--nam") != std::string::npos);  // no abbreviations
  CHECK(refusal({"-x"}).find("x") != std::string::npos);
  // A script's variable that is not set.
  CHECK(refusal({"--name", ""}).find("--name") != std::string::npos);
  CHECK(refusal({"--name="}).find("--name") != std::string::npos);
  CHECK(refusal({"--name", "ok", "--pgport", ""}).find("--pgport") != std::string::npos);
  CHECK(refusal({"--force", "--name", "ok"}).empty());
}

TEST_CASE("options: the environment stands in, the command line wins") {
  ::setenv("PGVIGIL_TEST_DIR", "", 1);
  ::setenv("PGVIGIL_TEST_DIR2", "/from/env", 1);
  const cli::Args from_env = cli::parse_options(options, {});
  CHECK(from_env.get("pgdata") == "/from/env");
  CHECK(from_env.has("pgdata"));
  CHECK_FALSE(from_env.given("pgdata"));
  CHECK(cli::parse_options(options, {"--pgdata", "/given"}).get("pgdata") == "/given");
  ::unsetenv("PGVIGIL_TEST_DIR");
  ::unsetenv("PGVIGIL_TEST_DIR2");
  CHECK_FALSE(cli::parse_options(options, {}).has("pgdata"));
}

TEST_CASE("numbers and truth values") {
  CHECK(cli::parse_integer("0", "n", 0, 100) == 0);
  for (const char* bad : {"", "1x", " 1", "101", "-1", "1.5", "99999999999"}) {
    CHECK_THROWS_AS(cli::parse_integer(bad, "n", 0, 100), UserError);
  }
  CHECK(cli::parse_boolean("TRUE", "b"));
  CHECK_FALSE(cli::parse_boolean("off", "b"));
  CHECK_THROWS_AS(cli::parse_boolean("perhaps", "b"), UserError);
}

TEST_CASE("dispatch: the longest command wins; leading flags; pass-through") {
  Called called;
  const cli::Program tree = program(called);
  CHECK(cli::dispatch(tree, {"show", "state", "--name", "x"}) == 0);
  CHECK(called.command == "show state");
  CHECK(called.args.get("name") == "x");
  cli::dispatch(tree, {"show", "state", "full"});
  CHECK(called.command == "show state full");
  cli::dispatch(tree, {"-q", "show", "state"});
  CHECK(called.command == "show state");
  CHECK(called.args.has("quiet"));
  cli::dispatch(tree, {"set", "priority", "50"});
  CHECK(called.args.arguments == std::vector<std::string>{"50"});
  cli::dispatch(tree, {"create", "node", "--what", "ever", "--help"});
  CHECK(called.command == "create node");
  CHECK(called.args.raw == std::vector<std::string>{"--what", "ever", "--help"});
  cli::dispatch(tree, {"--version"});
  CHECK(called.command == "version");
}

TEST_CASE("dispatch: what is refused, and how it is said") {
  CHECK(dispatch_refusal({"shwo"}).find("\"shwo\"") != std::string::npos);
  CHECK(dispatch_refusal({"show", "stat"}).find("\"stat\"") != std::string::npos);
  CHECK(dispatch_refusal({"show"}).find("further word") != std::string::npos);
  CHECK(dispatch_refusal({"set", "priority"}).find("needs N") != std::string::npos);
  CHECK(dispatch_refusal({"set", "priority", "1", "because", "more"}).find("\"more\"") != std::string::npos);
  CHECK(dispatch_refusal({"show", "state", "extra"}).find("\"extra\"") != std::string::npos);
  CHECK(dispatch_refusal({"help", "nothing"}).find("\"nothing\"") != std::string::npos);
}

TEST_CASE("help ends well everywhere") {
  Called called;
  const cli::Program tree = program(called);
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{{},
                                                                                    {"help"},
                                                                                    {"--help"},
                                                                                    {"help", "show"},
                                                                                    {"show", "--help"},
                                                                                    {"help", "show", "state"},
                                                                                    {"show", "state", "--help"},
                                                                                    {"set", "priority", "--help"},
                                                                                    {"-h"}}) {
    const Captured out(std::cout);
    CHECK(cli::dispatch(tree, args) == 0);
    CHECK(out.text().find("Usage: tool") != std::string::npos);
    CHECK(called.command.empty());
  }
}

TEST_CASE("run_main: errors become text and exit codes") {
  char name[] = "tool";
  char* argv[] = {name, nullptr};
  const auto run = [&](const std::function<void()>& body) {
    return cli::run_main("tool", 1, argv, [&](const std::vector<std::string>&) {
      body();
      return 7;
    });
  };
  const Captured err(std::cerr);
  CHECK(run([] {}) == 7);
  CHECK(err.text().empty());
  CHECK(run([] { throw UserError(ExitCode::dropped, "it is gone", "make another"); }) == 121);
  CHECK(err.text() == "tool: error: it is gone\nhint: make another\n");
  CHECK(run([] { throw pg::ConnectionError(pg::ConnectionError::Kind::refused, "refused"); }) == 6);
  CHECK(run([] { throw pg::SqlError("42601", "bad", "better"); }) == 4);
  CHECK(run([] { throw std::runtime_error("oops"); }) == 12);
}

TEST_CASE("table: widths, alignment, no control characters, no spaces at the end") {
  cli::Table table({"Name", "LSN"});
  CHECK(table.empty());
  table.align(1, cli::Align::right);
  table.add({"nöde", "1"});
  table.add({"b\x1b[2J\n", "0/1000"});
  table.add({"only"});
  CHECK(table.text() ==
        " Name   |    LSN\n"
        "--------+--------\n"
        " nöde   |      1\n"
        " b [2J  | 0/1000\n"
        " only   |\n");
}

TEST_CASE("JSON text") {
  const auto value = boost::json::parse(R"({"b":[1,{"c":null}],"a":{},"d":[],"e":"x\"y"})");
  CHECK(cli::pretty(value) ==
        "{\n    \"b\": [\n        1,\n        {\n            \"c\": null\n        }\n    ],\n    \"a\": {},\n    "
        "\"d\": [],\n"
        "    \"e\": \"x\\\"y\"\n}\n");
  CHECK(boost::json::parse(cli::pretty(value)) == value);
  CHECK(cli::cell(value, "e") == "x\"y");
  CHECK(cli::cell(value, "nothing").empty());
  CHECK(cli::cell(boost::json::parse("[1]"), "e").empty());
}

TEST_CASE("a daemon's log is as loud as its command says, else as its configuration") {
  const auto level = [](const std::vector<std::string>& args) {
    return cli::log_level(cli::parse_options(cli::log_options(), args), "info");
  };
  CHECK(level({}) == "info");
  CHECK(level({"-q"}) == "warn");
  CHECK(level({"--verbose"}) == "debug");
}

TEST_CASE("times are the operator's") {
  const char* before = std::getenv("TZ");
  const std::string zone = before == nullptr ? "" : before;
  const auto at = [](const char* zone_of_operator, const char* time) {
    ::setenv("TZ", zone_of_operator, 1);
    ::tzset();
    return cli::local_time(time);
  };
  CHECK(at("UTC0", "2024-05-01T12:00:00.123456+02:00") == "2024-05-01 10:00:00");
  CHECK(at("CET-1CEST,M3.5.0,M10.5.0/3", "2024-05-01T12:00:00+00:00") == "2024-05-01 14:00:00");
  CHECK(at("CET-1CEST,M3.5.0,M10.5.0/3", "2024-12-31T23:30:00.5+00") == "2025-01-01 00:30:00");
  // St John's, on both sides.
  CHECK(at("NST3:30NDT,M3.2.0,M11.1.0", "2024-01-01T00:10:00+00:00") == "2023-12-31 20:40:00");
  CHECK(at("UTC0", "2024-01-01T00:10:00-03:30") == "2024-01-01 03:40:00");
  CHECK(at("UTC0", "2024-01-01T00:10:00-00:30") == "2024-01-01 00:40:00");
  CHECK(at("<+0545>-5:45", "2024-01-01T00:00:00+05:30") == "2024-01-01 00:15:00");
  for (const char* other : {"", "yesterday", "2024-05-01", "2024-05-01T12:00:00"}) CHECK(at("UTC0", other) == other);
  if (before == nullptr) {
    ::unsetenv("TZ");
  } else {
    ::setenv("TZ", zone.c_str(), 1);
  }
  ::tzset();
}

TEST_CASE("the manual and the completion are made of the table") {
  cli::Program program{"pgvigil-test", "tests", {}, {{"verbose,v", "", "say more"}}, ""};
  program.commands.push_back({"show state", "the nodes", options, {"[WHAT]"}, {}, ".a detail with \\ and\n.dots"});
  program.commands.front().values = {{"an.entry", "what it means - in short"}};
  CHECK(cli::help_text(program, program.commands.front()).find("[WHAT]:\n  an.entry  what it means - in short\n") !=
        std::string::npos);
  cli::Command handed{"create node", "makes one"};
  handed.same_as = "pgvigil-other create";
  program.commands.push_back(handed);
  const auto pages = cli::manual_pages(program);
  REQUIRE(pages.size() == 3);
  const std::string& page = pages.at("pgvigil-test-show-state.1");
  CHECK(page.find("\\fB\\-\\-pgport\\fR \\fIPORT\\fR\na port\n") != std::string::npos);
  CHECK(page.find("PGVIGIL_TEST_DIR2") != std::string::npos);
  CHECK(page.find("\\fB\\-v\\fR, \\fB\\-\\-verbose") != std::string::npos);
  CHECK(page.find("\\&.a detail with \\e and\n\\&.dots\n") != std::string::npos);
  CHECK(page.find(".TP\n\\fBan.entry\\fR\nwhat it means \\- in short\n") != std::string::npos);
  CHECK(pages.at("pgvigil-test-create-node.1").find("pgvigil\\-other\\-create\\fR(1)") != std::string::npos);
  CHECK(pages.at("pgvigil-test.1").find("show state") != std::string::npos);
  const std::string script = cli::bash_completion(program);
  CHECK(script.find("'') echo 'create help show '") != std::string::npos);
  CHECK(script.find(
            "'show state') echo ' --name=NODE --pgport=PORT --force --verbose -v --pgdata=DIR an.entry --help'") !=
        std::string::npos);
  CHECK(script.find("'create node') _pgvigil_other_table 'create' ;;") != std::string::npos);
}
