// Following an operator's request: until it is decided, and until the group has come to rest.
#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "common/cli/client/context.hpp"

namespace pgvigil::client {

class Follower {
 public:
  // LISTENs; call it before the request is made. `group`: nullopt for all.
  Follower(Monitor& monitor, const Args& args, std::string formation, std::optional<int> group,
           std::chrono::seconds limit);

  // Waits until the request is decided. Throws UserError: bad_arguments with the monitor's words when it is refused,
  // internal when time runs out. Returns the monitor's message.
  std::string wait_decision(std::int64_t request);
  // Waits until the group is settled; UserError(internal) when time runs out.
  json::array wait_settled();
  // Until the node has reached one of the states.
  json::array wait_node(std::int64_t node, const std::vector<std::string>& states);
  // Waits until there is no such node any more.
  void wait_gone(std::int64_t node);
  // As they are now.
  json::array nodes();

 private:
  // Reads the states, prints what has changed; then waits a little when `done` is false. False: time is over.
  bool step();
  void show_changes();

  Monitor& monitor_;
  const Args& args_;
  std::string formation_;
  std::optional<int> group_;
  std::chrono::seconds limit_;
  std::chrono::steady_clock::time_point deadline_;
  json::array nodes_;
  std::map<std::int64_t, std::string> shown_;  // node -> its states
  bool header_shown_{false};
};

}  // namespace pgvigil::client
