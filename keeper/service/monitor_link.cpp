// Reports, and the goals that come back.
#include "common/log/log.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/race.hpp"
#include "keeper/actions/upstream.hpp"
#include "keeper/service/keeper.hpp"

namespace pgvigil::keeper {

namespace {

// For each answer while a session is made. When all keepers of a large fleet come at once, the last of them are let in
// after half a minute, but only those that wait: whoever gives up early makes work for nothing.
constexpr pg::Millis session_limit{2000};
constexpr pg::Millis longest_session_limit{16000};
constexpr pg::Millis open_limit{5000};
constexpr pg::Millis report_patience{2000};
constexpr pg::Millis report_limit{10000};

}  // namespace

asio::awaitable<void> Keeper::monitor_link() {
  pg::Millis backoff{100};
  pg::Millis answers = session_limit;
  std::string announced;
  while (!finished_) {
    std::string failure;
    bool late = false;
    const auto before = core_.last_answer();
    try {
      co_await monitor_session(answers);
    } catch (const pg::ConnectionError& error) {
      failure = error.what();
      late = error.kind == pg::ConnectionError::Kind::timeout;
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (finished_ || letting_go_) co_return;
    if (failure.empty()) continue;
    const bool had_contact = core_.last_answer() != before;
    if (had_contact || announced != failure) log::warn("no contact with the monitor: {}", failure);
    announced = failure;
    backoff = had_contact ? pg::Millis{50} : std::min(backoff * 2, pg::Millis{1000});
    if (had_contact) answers = session_limit;
    if (late && !had_contact) answers = std::min(answers * 2, longest_session_limit);
    co_await os::sleep_about(backoff);
  }
}

asio::awaitable<void> Keeper::monitor_session(pg::Millis answers) {
  std::optional<MonitorAccess> entered = std::exchange(next_access_, std::nullopt);
  if (!entered) entered = co_await enter_monitor(node_, answers);
  MonitorAccess access = std::move(*entered);
  pg::Connection& monitor = access.session;
  monitor_api::Attention attention;
  monitor_api::Reporter reporter;
  co_await attention.open(monitor, node_.id, std::max(answers, open_limit));
  const std::string uri = node_.config.monitor_uri;
  std::string said;
  bool waits = false;
  while (!finished_ && uri == node_.config.monitor_uri) {  // another one after a reload
    const auto sent = now();
    const std::optional<Report> tellable = report_to_tell(sent);
    if (!tellable) {
      co_await report_now_.wait(heartbeat_);
      continue;
    }
    Report report = *tellable;
    if (const std::string more = notices(); !more.empty()) report.reason += (report.reason.empty() ? "" : "; ") + more;
    // What matters of a full one: it takes no writes. And a walreceiver that hangs in it says that it streams.
    if (disk_.hung()) report.disk_full = true;
    if (disk_.hung()) report.streaming = false;
    recorder_.reports(report.state, report.goal_seq, sent);
    const monitor_api::Answer answer = co_await answer_to(monitor, reporter, report);
    if (answer.kind == monitor_api::Answer::Kind::goal) {
      if (answer.goal.heartbeat_ms > 0) heartbeat_ = pg::Millis{answer.goal.heartbeat_ms};
      co_await answered(monitor, answer.goal, sent);
      co_await tell_moments(monitor);
      co_await say_sslmode(monitor, said);
      if (co_await attention.after(monitor, report, answer.goal)) continue;
    } else if (answer.kind == monitor_api::Answer::Kind::tell) {
      co_await tell(monitor);
      if (!access.own) co_return;  // the monitor knows the node now, and can give it a credential of its own
    } else if (!std::exchange(waits, true)) {
      log::info("the monitor gives this node no orders now; its show state and show why say what it waits for");
    }
    const auto order = [&]() -> asio::awaitable<void> {
      if (co_await monitor.wait_notification(heartbeat_)) reporter.in_full();
    };
    const auto news = [&]() -> asio::awaitable<void> { co_await report_now_.wait(heartbeat_); };
    co_await os::race(order(), news());
  }
}

// Nothing that could be forgotten. A primary whose state file is on its way to a disk that hangs says once more what it
// was before: commits wait there, and only the monitor can let another node take over. Whoever has an order that it
// cannot keep, to stop or to vote, is silent instead: nobody is to wait for it.
std::optional<Report> Keeper::report_to_tell(Millis sent) {
  if (holds_state()) return told_ = core_.report(sent);
  const bool writer = told_ && takes_writes(told_->state) && takes_writes(core_.goal().state);
  return disk_.hung() && writer ? told_ : std::nullopt;
}

// The session is given up for a late answer only when there is another: on a slow line, where that takes ten times as
// long as an answer, to begin anew would mean not to be heard at all.
asio::awaitable<monitor_api::Answer> Keeper::answer_to(pg::Connection& monitor, monitor_api::Reporter& reporter,
                                                       const Report& report) {
  std::optional<monitor_api::Answer> answer;
  const auto old_one = [&]() -> asio::awaitable<void> {
    answer = co_await reporter.tell(monitor, report, report_limit);
  };
  const auto new_one = [&]() -> asio::awaitable<void> {
    while (!next_access_) {
      co_await os::sleep_for(report_patience);
      try {
        next_access_ = co_await enter_monitor(node_, session_limit);
      } catch (const pg::ConnectionError& error) {
        log::debug("no answer from the monitor, and no other session with it: {}", error.what());
      }
    }
  };
  co_await os::race(old_one(), new_one());
  if (!answer)
    throw pg::ConnectionError(pg::ConnectionError::Kind::timeout, "no answer to a report, but to a new session");
  next_access_.reset();
  co_return *answer;
}

asio::awaitable<void> Keeper::answered(pg::Connection& monitor, Goal goal, pg::Millis sent) {
  if (!core_.last_answer()) log::info("in contact with the monitor");
  telling_ = false;
  const Millis received = now();
  const Core::Save save = core_.answered(goal, sent, received);
  // The state file may lie on the disk that hangs. Clients have to look elsewhere even so.
  if (disk_.hung() && being_demoted(core_.goal().state)) instance_.kill();
  keep(save);
  recorder_.ordered(core_.goal(), core_.state().reported, received);
  if (core_.goal().state != logged_goal_) {
    log::info("goal {} -> {} (term {})", to_string(logged_goal_), to_string(core_.goal().state), goal.term.value);
    logged_goal_ = core_.goal().state;
  }
  if (goal.state != NodeState::dropped && goal.peers_version != core_.state().peers_version) {
    const std::vector<Peer> peers = co_await monitor_api::get_peers(monitor, node_.id, goal.peers_version);
    keep(core_.learned_peers(peers, goal.peers_version));
  }
  watch_now_.set();
  reconcile_now_.set();
}

// The monitor has lost its memory. What is told must be what is on disk.
asio::awaitable<void> Keeper::tell(pg::Connection& monitor) {
  if (!holds_state()) throw Error(state_file_.failure());
  if (!std::exchange(telling_, true)) {
    log::warn("the monitor lacks what this node knows (it was restored from a backup, or is new): telling it");
  }
  const Passwords passwords = read_passfile(node_);
  monitor_api::Identity identity;
  identity.node.formation = node_.config.formation;
  identity.node.group = node_.config.group;
  identity.node.name = core_.state().name;
  identity.node.host = node_.config.hostname;
  identity.node.port = node_.config.port;
  identity.node.dbname = node_.config.dbname;
  identity.node.system_identifier = core_.state().system_identifier;
  identity.node.candidate_priority = node_.config.candidate_priority;
  identity.node.replication_quorum = node_.config.replication_quorum;
  identity.node.known_id = node_.id;
  identity.replication_password = passwords.replication;
  identity.probe_password = passwords.probe;
  const Account account = core_.account(copy_unfinished(node_));
  std::optional<pg::SqlError> refused;
  try {
    co_await monitor_api::tell(monitor, identity, account);
  } catch (const pg::SqlError& error) {
    refused = error;
  }
  if (!refused) co_return;
  if (refused->sqlstate != "PV403") throw *refused;
  const std::string conninfo = registration_conninfo(node_.config);
  pg::Connection registration = co_await pg::Connection::connect(conninfo, session_limit);
  co_await monitor_api::tell(registration, identity, account);
}

}  // namespace pgvigil::keeper
