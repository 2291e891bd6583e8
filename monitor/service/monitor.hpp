// The monitor process: wakes on reports and timers, asks the state machine, applies what it decides. All truth is in
// the database: it can be killed and started again at any moment. Ages are measured by its own monotonic clock and
// start again with it.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "common/os/event.hpp"
#include "common/pg/connection.hpp"
#include "monitor/fsm/explain.hpp"
#include "monitor/fsm/liveness.hpp"
#include "monitor/fsm/waits.hpp"
#include "monitor/moments/recorder.hpp"
#include "monitor/probe/probe.hpp"
#include "monitor/service/witness.hpp"
#include "monitor/store/store.hpp"

namespace pgvigil::monitor {

class Monitor {
 public:
  // `conninfo`: of the monitor's database, as the owner of the schema; `ours_alone`: see migrate(). `witness`: see
  // witness.hpp.
  Monitor(asio::io_context& context, std::string conninfo, bool ours_alone, std::filesystem::path witness);

  // Serves until stop(). Throws only what makes going on senseless (a schema that is newer than this program).
  asio::awaitable<void> run();
  void stop() { stopping_ = true; }
  // The certificates by which its probes verify those of the nodes; "" = none.
  void trust(std::string ca_file) {
    ca_file_ = std::move(ca_file);
    notified_ = true;
  }
  // Its database answers, and no other process decides.
  bool deciding() const { return deciding_; }
  std::size_t nodes() const { return groups_.size(); }

 private:
  using Clock = std::chrono::steady_clock;
  // What the group looked like when it was last loaded. Whatever else changes is notified of; ages grow by themselves.
  struct Picture {
    GroupSnapshot group;
    // What stands in the explanation table; nullopt: whatever a predecessor left there.
    std::optional<std::vector<fsm::Explanation>> told;
    fsm::Waits waits;
    Clock::time_point loaded_at{};
  };
  // A group whose rows somebody else holds locked.
  struct Blocked {
    Clock::time_point again_at;  // not tried before
    Clock::time_point look_at;   // not looked before for whom it waits
    std::set<Blocker> told_of;
    std::optional<std::string> unseen;  // why that could not be found out
  };
  asio::awaitable<void> session();
  asio::awaitable<void> check_memory(pg::Connection& database);
  // A disk that is full must not keep it from deciding.
  void keep_witness(const Witness& witness);
  asio::awaitable<void> lead(pg::Connection& database);
  asio::awaitable<void> look(pg::Connection& database);
  asio::awaitable<void> refresh_probe_targets(pg::Connection& database);
  asio::awaitable<void> evaluate_due(pg::Connection& database, Clock::time_point until);
  // Takes up one group. One that is blocked holds nobody else up.
  asio::awaitable<void> evaluate(pg::Connection& database, GroupKey key);
  asio::awaitable<void> evaluate_blocked(pg::Connection& database, GroupKey key, Blocked& blocked);
  // While this session waits for the group, another one looks for whom, and ends what may be ended. Does not return.
  asio::awaitable<void> clear_the_way(std::int64_t waiting, GroupKey key, Blocked& blocked);
  asio::awaitable<void> decide(pg::Connection& database, GroupKey key, std::optional<pg::Millis> longest_wait);
  asio::awaitable<void> rest(pg::Connection& database, GroupKey key);
  asio::awaitable<void> take_notifications(pg::Connection& database, Clock::time_point until);
  // Time limits pass without anybody's word: asks the state machine about every picture, aged, without the database.
  void find_due();
  void age(GroupSnapshot& group);
  static std::optional<GroupKey> parse_payload(const std::string& payload);

  asio::io_context& context_;
  std::string conninfo_;
  bool ours_alone_;
  std::filesystem::path witness_;
  std::optional<Witness> last_witness_;  // of this process
  bool witness_fails_{false};
  std::string system_identifier_;  // of the database
  std::string ca_file_;
  Probes probes_;
  os::Event probed_;  // a probe has news
  fsm::Liveness liveness_;
  std::map<NodeId, GroupKey> groups_;
  std::map<GroupKey, Picture> pictures_;
  std::map<GroupKey, Recorder> recorders_;
  std::map<GroupKey, Blocked> blocked_;
  std::set<GroupKey> due_;
  // Of the next look at the nodes' sessions and report counts. News brings it forward.
  Clock::time_point look_at_{};
  Clock::time_point looked_at_{};
  Clock::time_point found_due_at_{};
  bool notified_{false};  // since the probe targets were last read
  bool stopping_{false};
  bool deciding_{false};
};

}  // namespace pgvigil::monitor
