// The monitor's own look at each node's PostgreSQL: a question that needs a working backend, over one persistent
// session a node.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/model/group.hpp"
#include "common/model/pace.hpp"
#include "common/os/event.hpp"

namespace pgvigil::monitor {

namespace asio = boost::asio;

struct ProbeState {
  ProbeResult result{ProbeResult::unknown};
  std::chrono::steady_clock::time_point at;         // of the result
  std::chrono::steady_clock::time_point last_good;  // or when the probing began
};

class Probes {
 public:
  // `changed` is called when a node's result becomes another, and with the first result after probe_now().
  Probes(asio::io_context& context, std::function<void(NodeId)> changed);
  ~Probes();
  // Begins to probe a node, or follows it to another address. `conninfo` carries the probe's password; it is never
  // logged.
  void watch(NodeId node, const std::string& conninfo, Pace pace);
  void forget_others(const std::vector<NodeId>& nodes);
  // Do not wait for the next round: something points to a change.
  void probe_now(NodeId node);
  ProbeState state(NodeId node) const;
  void stop();

 private:
  struct Target;
  asio::awaitable<void> run(std::shared_ptr<Target> target);
  static asio::awaitable<void> rest(Target& target);
  asio::io_context& context_;
  std::function<void(NodeId)> changed_;
  std::map<NodeId, std::shared_ptr<Target>> targets_;
  std::chrono::steady_clock::time_point begin_at_{};  // of the target that was added last
};

}  // namespace pgvigil::monitor
