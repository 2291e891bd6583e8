// perform failover|switchover|promotion.
#include "common/cli/client/commands.hpp"
#include "common/cli/client/outcome.hpp"
#include "common/cli/client/writer.hpp"
#include "common/cli/json_text.hpp"

namespace pgvigil::client {

namespace {

const Option wait_option{"wait", "SECONDS", "how long to wait for the end (60); 0: only until it is decided"};
// A decision takes milliseconds; somebody who does not wait for the end still wants to know whether it was refused.
constexpr std::chrono::seconds decision_limit{10};

struct Waiting {
  std::chrono::seconds limit;
  bool to_the_end;
};

Waiting waiting(const Args& args, int fallback) {
  const int seconds = args.integer("wait", fallback, 0, 86400);
  const bool wait = seconds > 0 && !args.has("no-wait");
  return {wait ? std::chrono::seconds(seconds) : decision_limit, wait};
}

void finish(const Args& args, const json::array& nodes, const std::string& message) {
  if (args.has("json")) {
    print_json(nodes);
  } else {
    note(args, message);
  }
}

// `expected`: who has to take writes in the end; "" for anybody but `before`.
int follow(const Args& args, Follower& follower, std::int64_t request, bool to_the_end, const std::string& expected,
           const std::string& before) {
  const std::string message = follower.wait_decision(request);
  if (!args.has("json")) note(args, message);
  if (!to_the_end) {
    if (args.has("json")) print_json(follower.nodes());
    return 0;
  }
  const json::array nodes = follower.wait_settled();
  const std::string writer = writer_name(nodes);
  if (expected.empty() ? writer == before && !before.empty() : writer != expected) {
    throw UserError(ExitCode::internal, "it was given up: " + writer + " takes writes",
                    "`pgvigil show events` says why");
  }
  finish(args, nodes, writer + " takes writes now");
  return 0;
}

int failover(const Args& args) {
  const std::string formation = formation_of(args);
  const Waiting wait = waiting(args, 60);
  Monitor monitor(args);
  const int group = one_group(monitor, args);
  Follower follower(monitor, args, formation, group, wait.limit);
  const std::string before = assigned_writer_name(monitor.current_state(formation, group));
  const auto result =
      monitor.change("select pgvigil.perform_failover($1::text, $2::int, $3::boolean) as id",
                     {formation, std::to_string(group), args.has("allow-data-loss") ? "true" : "false"});
  // By force the former primary itself may be chosen.
  const bool forced = args.has("allow-data-loss");
  return follow(args, follower, result.integer(0, "id"), wait.to_the_end, "", forced ? "" : before);
}

int promotion(const Args& args) {
  const std::string formation = formation_of(args);
  const Waiting wait = waiting(args, 60);
  Monitor monitor(args);
  const json::value node = find_node(monitor.current_state(formation, std::nullopt), args);
  const std::string name = cli::cell(node, "nodename");
  Follower follower(monitor, args, formation, static_cast<int>(integer_of(node, "group_id")), wait.limit);
  const auto result = monitor.change("select pgvigil.perform_promotion($1::text, $2::text) as id", {formation, name});
  return follow(args, follower, result.integer(0, "id"), wait.to_the_end, name, "");
}

}  // namespace

std::vector<Command> perform_commands() {
  const Option data_loss{"allow-data-loss", "", "go on with the best node that is left, though commits may be lost"};
  const Option name{"name", "NODE", "the node to promote (else the one of --pgdata)"};
  const Option no_wait{"no-wait", "", "the same as --wait 0"};
  const std::string details =
      "Prints each change of a state, and ends when a node takes writes and every node that can be heard has reached "
      "its state.\n"
      "Exits with 1 when it is refused, with 12 when the time is over (the monitor goes on all the same).";
  const auto failover_options = monitor_options({group_option(), wait_option, no_wait, data_loss});
  return {
      {"perform failover",
       "hand over to the best secondary; an election when the primary is lost",
       failover_options,
       {},
       failover,
       details},
      {"perform switchover", "the same as perform failover", failover_options, {}, failover, details},
      {"perform promotion",
       "hand over to one certain node",
       monitor_options({name, wait_option, no_wait}),
       {},
       promotion,
       details},
  };
}

}  // namespace pgvigil::client
