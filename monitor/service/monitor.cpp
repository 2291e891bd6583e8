#include "monitor/service/monitor.hpp"

#include <charconv>

#include "common/log/log.hpp"
#include "common/os/race.hpp"
#include "common/pg/conninfo.hpp"
#include "monitor/fsm/decide.hpp"
#include "monitor/service/witness.hpp"

namespace pgvigil::monitor {

namespace {

// How long a change that nobody notifies of (a closed session, a passed time limit) may go unseen.
constexpr pg::Millis tick{100};
// News often comes together with a closed session; a look costs about a millisecond for each thousand nodes.
constexpr pg::Millis shortest_tick{10};
// No group is forgotten, whatever may be wrong with the notifications. Spread over the ticks.
constexpr std::chrono::seconds longest_rest{30};
constexpr pg::Millis patience{5000};
// The server gives up before this process does: a backend whose client has closed the socket would go on waiting for
// its lock, and keep the lock of the process that decides from the next session.
constexpr const char* limits =
    "SET lock_timeout = '1s'; SET statement_timeout = '4500ms'; "
    // A host that has vanished must not go on deciding in the eyes of the next one, also where the PostgreSQL is
    // somebody else's (write_files(); open_session() does so for keepers).
    "SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 5000";
// A group whose rows are locked by others: tried so often, and so long, that the other groups hardly notice.
constexpr pg::Millis blocked_pause{500};
constexpr pg::Millis blocked_wait{50};
// Nobody else's transaction lasts that long. Then it is looked for, so often, and waited for as long as that takes.
constexpr std::chrono::seconds blocked_too_long{3};
constexpr std::chrono::seconds blockers_pause{2};
constexpr pg::Millis blockers_wait{500};

// Somebody else's locks, or a server that is too slow just now: the same may succeed later.
bool transient(const pg::SqlError& error) {
  return error.sqlstate == "55P03" || error.sqlstate == "57014" || error.sqlstate == "40P01";
}

Millis since_origin(std::chrono::steady_clock::time_point when) {
  return std::chrono::duration_cast<Millis>(when.time_since_epoch());
}

Millis now() {
  return since_origin(std::chrono::steady_clock::now());
}

void log_decision(const GroupSnapshot& group, const fsm::Decision& decision) {
  log::info("{}/{}: rule {} {}: {}", group.formation, group.group, decision.rule, decision.rule_name,
            decision.description);
  for (const fsm::GoalChange& change : decision.goals) {
    const NodeView* node = group.find(change.node);
    if (node != nullptr)
      log::info("{}/{}: {} {} -> {}", group.formation, group.group, node->name, to_string(node->goal),
                to_string(change.goal));
  }
}

}  // namespace

Monitor::Monitor(asio::io_context& context, std::string conninfo, bool ours_alone, std::filesystem::path witness)
    : context_(context),
      conninfo_(std::move(conninfo)),
      ours_alone_(ours_alone),
      witness_(std::move(witness)),
      probes_(context,
              [this](NodeId node) {
                if (const auto found = groups_.find(node); found != groups_.end()) due_.insert(found->second);
                probed_.set();
              }),
      probed_(context.get_executor()) {}

asio::awaitable<void> Monitor::run() {
  while (!stopping_) {
    std::string failure;
    try {
      co_await session();
    } catch (const UserError&) {
      probes_.stop();
      throw;
    } catch (const std::exception& error) {
      failure = error.what();
    }
    deciding_ = false;
    if (stopping_) break;
    log::warn("the monitor's database: {}", failure);
    co_await os::sleep_for(pg::Millis{200});
  }
  probes_.stop();
}

asio::awaitable<void> Monitor::session() {
  pg::Connection database = co_await pg::Connection::connect(conninfo_, patience);
  co_await migrate(database, ours_alone_);
  // One process decides. Its predecessor's session may outlive it for a moment.
  for (;;) {
    const pg::Result lock = co_await database.query("SELECT pg_try_advisory_lock(7367032) AS got", {}, patience);
    if (lock.boolean(0, "got")) break;
    if (stopping_) co_return;
    log::info("another monitor process is deciding; waiting");
    co_await os::sleep_for(pg::Millis{1000});
  }
  co_await database.query(limits, {}, patience);
  co_await check_memory(database);
  const pg::Result forgotten =
      co_await database.query("SELECT asked FROM pgvigil.refuse_forgotten_requests()", {}, patience);
  for (int row = 0; row < forgotten.rows(); ++row)
    log::warn("refused, for it was asked long ago: {}", forgotten.text(row, "asked"));
  co_await database.query("LISTEN pgvigil_wake", {}, patience);
  log::info("the monitor decides");
  deciding_ = true;
  co_await lead(database);
}

asio::awaitable<void> Monitor::lead(pg::Connection& database) {
  pictures_.clear();
  liveness_.excuse_all(now());
  groups_ = co_await load_groups(database);
  for (const auto& [node, group] : groups_) due_.insert(group);
  look_at_ = Clock::time_point{};
  auto probe_targets_at = Clock::time_point{};
  while (!stopping_) {
    const auto since_targets = Clock::now() - probe_targets_at;
    if (since_targets >= std::chrono::seconds{notified_ ? 1 : 10}) {
      notified_ = false;
      co_await refresh_probe_targets(database);
      probe_targets_at = Clock::now();
    }
    if (Clock::now() >= look_at_) co_await look(database);
    // Many groups at once must not keep it from looking: ages would be counted from the last look.
    co_await evaluate_due(database, look_at_);
    co_await take_notifications(database, due_.empty() ? look_at_ : Clock::time_point{});
  }
}

asio::awaitable<void> Monitor::take_notifications(pg::Connection& database, Clock::time_point until) {
  const auto pause = std::chrono::ceil<pg::Millis>(until - Clock::now());
  std::optional<pg::Notification> notification;
  bool probed = false;
  const auto word = [&]() -> asio::awaitable<void> { notification = co_await database.wait_notification(pause); };
  const auto probe = [&]() -> asio::awaitable<void> { probed = co_await probed_.wait(pause); };
  if (pause.count() > 0) {
    co_await os::race(word(), probe());
  } else {
    notification = co_await database.wait_notification(pg::Millis{0});
  }
  // A server that is gone has often taken its keeper's session with it.
  if (probed) look_at_ = std::min(look_at_, looked_at_ + shortest_tick);
  while (notification) {
    if (const auto key = parse_payload(notification->payload)) due_.insert(*key);
    notified_ = true;
    look_at_ = std::min(look_at_, looked_at_ + shortest_tick);
    notification = co_await database.wait_notification(pg::Millis{0});
  }
}

// A database that was restored from a backup knows less than its nodes have been told, and must not give orders.
asio::awaitable<void> Monitor::check_memory(pg::Connection& database) {
  Witness now = co_await take_witness(database);
  auto before = load_witness(witness_);
  if (!before) before = last_witness_;
  if (const auto lost = not_a_continuation(before, now)) {
    liveness_ = fsm::Liveness{};
    std::vector<pg::Param> params;
    params.emplace_back(*lost);
    const pg::Result groups = co_await database.query(
        "SELECT pgvigil.lose_memory(g.formation, g.group_id, $1) FROM pgvigil.grp g WHERE EXISTS "
        "(SELECT FROM pgvigil.node n WHERE n.formation = g.formation AND n.group_id = g.group_id)",
        params, patience);
    // Above both pasts: neither database can be taken for this one.
    now.generation = std::max(now.generation, before ? before->generation : 0) + 1;
    params.front() = std::to_string(now.generation);
    co_await database.query("UPDATE pgvigil.memory SET generation = $1", params, patience);
    if (groups.rows() > 0) log::warn("{}: {} groups are learned anew from their nodes", *lost, groups.rows());
  }
  keep_witness(now);
  system_identifier_ = now.system_identifier;
}

void Monitor::keep_witness(const Witness& witness) {
  last_witness_ = witness;
  std::string failure;
  try {
    save_witness(witness_, witness);
  } catch (const Error& error) {
    failure = error.what();
  }
  if (!failure.empty() && !witness_fails_)
    log::warn("{}; when the monitor starts again, it will learn from its nodes what it knows now", failure);
  if (failure.empty() && witness_fails_) log::info("{} can be written again", witness_.string());
  witness_fails_ = !failure.empty();
}

std::optional<GroupKey> Monitor::parse_payload(const std::string& payload) {
  const auto slash = payload.rfind('/');
  if (slash == std::string::npos) return std::nullopt;
  GroupKey key{payload.substr(0, slash), 0};
  const char* begin = payload.data() + slash + 1;
  const char* end = payload.data() + payload.size();
  const auto parsed = std::from_chars(begin, end, key.group);
  if (parsed.ec != std::errc{} || parsed.ptr != end) return std::nullopt;
  return key;
}

asio::awaitable<void> Monitor::look(pg::Connection& database) {
  const std::vector<fsm::Heard> heard = co_await hear(database);
  looked_at_ = Clock::now();
  look_at_ = looked_at_ + tick;
  const fsm::Liveness::News news = liveness_.look(heard, now());
  if (!news.appeared.empty() || groups_.size() != heard.size()) groups_ = co_await load_groups(database);
  for (const NodeId node : news.appeared) due_.insert(groups_[node]);
  for (const NodeId node : news.session_changed) due_.insert(groups_[node]);
  for (const NodeId node : news.session_closed) {
    log::info("node {}: its keeper's session is closed", node.value);
    probes_.probe_now(node);
  }
  if (looked_at_ - found_due_at_ >= tick) find_due();
}

void Monitor::find_due() {
  found_due_at_ = Clock::now();
  std::size_t rested = pictures_.size() / 100 + 1;
  const auto long_ago = found_due_at_ - longest_rest;
  for (auto& [key, picture] : pictures_) {
    age(picture.group);
    const bool moves =
        fsm::decide(picture.group) || fsm::explain(picture.group) != picture.told || !picture.waits.due(now()).empty();
    const bool forgotten = picture.loaded_at < long_ago && rested > 0;
    if (forgotten) --rested;
    if (moves || forgotten) due_.insert(key);
  }
  for (const auto& [key, blocked] : blocked_) due_.insert(key);
}

void Monitor::age(GroupSnapshot& group) {
  liveness_.fill_in(group, now(), [this](NodeId node) {
    const ProbeState probe = probes_.state(node);
    return fsm::ProbeView{probe.result, since_origin(probe.at), since_origin(probe.last_good)};
  });
}

asio::awaitable<void> Monitor::refresh_probe_targets(pg::Connection& database) {
  const pg::Result rows = co_await database.query(
      "SELECT n.id, n.host, n.port, n.sslmode, f.probe_password, f.heartbeat_ms FROM pgvigil.node n JOIN "
      "pgvigil.formation f ON f.name "
      "= n.formation "
      "WHERE n.reported_state NOT IN ('init', 'wait_standby', 'dropped')",
      {}, patience);
  std::vector<NodeId> nodes;
  for (int row = 0; row < rows.rows(); ++row) {
    const NodeId node{rows.integer(row, "id")};
    nodes.push_back(node);
    pg::ConninfoMap values{{"host", rows.text(row, "host")}, {"port", rows.text(row, "port")},
                           {"user", "pgvigil_probe"},        {"password", rows.text(row, "probe_password")},
                           {"dbname", "postgres"},           {"application_name", "pgvigil_probe"}};
    // As its keeper has seen it to work.
    pg::set_sslmode(values, rows.text(row, "sslmode"), ca_file_);
    probes_.watch(node, pg::to_conninfo(values), pace_of(pg::Millis{rows.integer(row, "heartbeat_ms")}));
  }
  probes_.forget_others(nodes);
}

asio::awaitable<void> Monitor::evaluate_due(pg::Connection& database, Clock::time_point until) {
  while (!due_.empty() && Clock::now() < until) {
    const GroupKey key = *due_.begin();
    due_.erase(due_.begin());
    co_await evaluate(database, key);
  }
}

// Nothing moves on by itself: says what everybody waits for, and how the last failover went. Ends the transaction.
asio::awaitable<void> Monitor::rest(pg::Connection& database, GroupKey key) {
  Picture& picture = pictures_[key];
  Recorder& recorder = recorders_[key];
  const std::vector<fsm::Explanation> why = fsm::explain(picture.group);
  const bool news = picture.told != why;
  picture.waits.saw(why, now());
  const std::vector<fsm::Explanation> lasting = picture.waits.due(now());
  if (!news && lasting.empty() && recorder.ended().empty()) {
    co_await rollback(database);
    co_return;
  }
  if (news) co_await store_explanations(database, picture.group, why);
  for (const fsm::Explanation& wait : lasting) co_await tell_of_wait(database, picture.group, wait);
  std::string failure;
  try {
    for (const Story& story : recorder.ended()) co_await store_story(database, picture.group, story);
  } catch (const pg::SqlError& error) {
    failure = error.what();
  }
  if (!failure.empty()) {
    recorder.stored();
    // No reason to stop deciding. The explanations come with the next look.
    log::warn("{}/{}: how the failover went is not kept: {}", key.formation, key.group, failure);
    co_await rollback(database);
    co_return;
  }
  co_await commit(database);
  recorder.stored();
  picture.told = why;
  picture.waits.told(lasting, now());
}

asio::awaitable<void> Monitor::evaluate(pg::Connection& database, GroupKey key) {
  const auto known = blocked_.find(key);
  const bool before = known != blocked_.end();
  if (before && Clock::now() < known->second.again_at) co_return;  // find_due() comes back to it
  std::string failure;
  try {
    if (before) {
      co_await evaluate_blocked(database, key, known->second);
    } else {
      co_await decide(database, key, std::nullopt);
    }
  } catch (const pg::SqlError& error) {
    if (!transient(error)) throw;
    failure = error.what();
  } catch (const UnreadableGroup& error) {
    failure = error.what();
  }
  if (failure.empty()) {
    if (before) log::info("{}/{}: can be decided on again", key.formation, key.group);
    blocked_.erase(key);
    co_return;
  }
  co_await rollback(database);
  const auto at = Clock::now();
  if (!before) {
    log::warn("{}/{}: cannot be decided on now ({}); the other groups go on", key.formation, key.group, failure);
    blocked_.emplace(key, Blocked{at, at + blocked_too_long, {}, {}});
  }
  blocked_.at(key).again_at = at + blocked_pause;
}

asio::awaitable<void> Monitor::evaluate_blocked(pg::Connection& database, GroupKey key, Blocked& blocked) {
  if (Clock::now() < blocked.look_at) {
    co_await decide(database, key, blocked_wait);
    co_return;
  }
  blocked.look_at = Clock::now() + blockers_pause;
  const pg::Result self = co_await database.query("SELECT pg_backend_pid() AS pid", {}, patience);
  const std::int64_t waiting = self.integer(0, "pid");
  const auto wait = [&]() -> asio::awaitable<void> { co_await decide(database, key, blockers_wait); };
  co_await os::race(wait(), clear_the_way(waiting, key, blocked));
}

asio::awaitable<void> Monitor::clear_the_way(std::int64_t waiting, GroupKey key, Blocked& blocked) {
  std::string failure;
  try {
    pg::Connection other = co_await pg::Connection::connect(conninfo_, patience);
    for (;;) {
      const std::vector<Blocker> blockers = co_await end_blockers(other, waiting, blocked.told_of);
      bool announced = false;
      for (const Blocker& blocker : blockers) {
        if (!blocked.told_of.insert(blocker).second) continue;
        announced |= blocker.to_end;
        const std::string way_out = blocker.to_end
                                        ? "it is ended"
                                        : "end it by SELECT pg_terminate_backend(" + std::to_string(blocker.pid) + ")";
        log::warn("{}/{}: its rows are held by a session of {} ({}); {}", key.formation, key.group, blocker.role,
                  blocker.state, way_out);
      }
      if (!announced) co_await os::sleep_for(tick);
    }
  } catch (const Error& error) {
    failure = error.what();
  }
  if (blocked.unseen != failure)
    log::warn("{}/{}: who holds its rows cannot be seen: {}", key.formation, key.group, failure);
  blocked.unseen = failure;
  co_await os::sleep_for(patience);  // the other one ends
}

asio::awaitable<void> Monitor::decide(pg::Connection& database, GroupKey key, std::optional<pg::Millis> longest_wait) {
  auto group = co_await lock_and_load(database, key, longest_wait);
  if (!group) {
    pictures_.erase(key);
    recorders_.erase(key);
    co_return;
  }
  age(*group);
  Recorder& recorder = recorders_[key];
  recorder.saw(*group, now());
  Picture& picture = pictures_[key];
  picture.group = *group;
  picture.loaded_at = Clock::now();
  const auto decision = fsm::decide(*group);
  if (!decision) {
    co_await rest(database, key);
    co_return;
  }
  recorder.decided(*group, *decision, now());
  const std::int64_t generation = co_await apply(database, *group, *decision);
  co_await commit(database);
  recorder.committed(now());
  log_decision(*group, *decision);
  keep_witness({system_identifier_, generation});
  due_.insert(key);  // until there is nothing left to decide
}

}  // namespace pgvigil::monitor
