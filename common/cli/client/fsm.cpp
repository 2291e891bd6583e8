// show fsm: the tables that the daemons themselves decide by.
#include <boost/json.hpp>
#include <cctype>
#include <set>

#include "common/cli/client/commands.hpp"
#include "common/cli/client/context.hpp"
#include "common/cli/table.hpp"
#include "common/model/node_state.hpp"
#include "keeper/fsm/plan.hpp"
#include "monitor/fsm/decide.hpp"

namespace pgvigil::client {

namespace {

// The states whose names stand in the words of a rule.
std::set<NodeState> states_in(std::string_view words) {
  std::set<NodeState> found;
  std::string word;
  const auto end_word = [&] {
    if (const auto state = parse_node_state(word)) found.insert(*state);
    word.clear();
  };
  for (const char c : words) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') {
      word += c;
    } else {
      end_word();
    }
  }
  end_word();
  return found;
}

// Two kinds of nodes: rules, and the states that their conditions and effects name.
std::string monitor_dot() {
  std::string text = "digraph monitor {\n  rankdir=LR;\n";
  for (const NodeState state : all_node_states)
    text += "  \"" + std::string(to_string(state)) + "\" [shape=ellipse];\n";
  for (const fsm::RuleInfo& rule : fsm::rules()) {
    const std::string id = "\"rule " + std::to_string(rule.number) + "\"";
    text += "  " + id + " [shape=box,label=\"" + std::to_string(rule.number) + " " + std::string(rule.name) + "\"];\n";
    for (const NodeState state : states_in(rule.condition))
      text += "  \"" + std::string(to_string(state)) + "\" -> " + id + " [style=dashed];\n";
    for (const NodeState state : states_in(rule.effect))
      text += "  " + id + " -> \"" + std::string(to_string(state)) + "\";\n";
  }
  return text + "}\n";
}

int show_monitor(const Args& args) {
  if (args.has("dot")) {
    print(monitor_dot());
    return 0;
  }
  json::array rows;
  cli::Table table({"Rule", "Name", "When", "Then"});
  for (const fsm::RuleInfo& rule : fsm::rules()) {
    rows.push_back(json::object{
        {"number", rule.number}, {"name", rule.name}, {"condition", rule.condition}, {"effect", rule.effect}});
    table.add(
        {std::to_string(rule.number), std::string(rule.name), std::string(rule.condition), std::string(rule.effect)});
  }
  if (args.has("json")) {
    print_json(rows);
  } else {
    print(table.text());
  }
  return 0;
}

int show_keeper(const Args& args) {
  json::array rows;
  cli::Table table({"From", "To", "Steps"});
  std::string dot = "digraph keeper {\n  rankdir=LR;\n";
  for (const NodeState from : all_node_states) {
    for (const NodeState goal : all_node_states) {
      const auto plan = keeper::plan(from, goal);
      if (!plan) continue;
      json::array steps;
      std::string words;
      for (const keeper::Step step : *plan) {
        steps.push_back(json::string(keeper::to_string(step)));
        words += (words.empty() ? "" : ", ") + std::string(keeper::to_string(step));
      }
      rows.push_back(json::object{{"from", to_string(from)}, {"to", to_string(goal)}, {"steps", steps}});
      table.add({std::string(to_string(from)), std::string(to_string(goal)), words});
      if (from == goal) continue;
      dot += "  \"" + std::string(to_string(from)) + "\" -> \"" + std::string(to_string(goal)) + "\" [label=\"" +
             words + "\"];\n";
    }
  }
  if (args.has("json")) {
    print_json(rows);
  } else {
    print(args.has("dot") ? dot + "}\n" : table.text());
  }
  return 0;
}

int show_fsm(const Args& args) {
  if (args.has("json") && args.has("dot"))
    throw UserError(ExitCode::bad_arguments, "--json and --dot exclude each other");
  return args.has("keeper") ? show_keeper(args) : show_monitor(args);
}

}  // namespace

std::vector<Command> fsm_commands() {
  return {{"show fsm",
           "the rules of the monitor, or the plans of the keeper",
           {{"keeper", "", "the keeper's plans instead of the monitor's rules"},
            {"dot", "", "print a graph for Graphviz"},
            json_option()},
           {},
           show_fsm,
           "The first rule that matches decides; its number stands in each event."}};
}

}  // namespace pgvigil::client
