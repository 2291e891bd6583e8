// Inserts unique ids through a multi-host URI, as an application would, and keeps their fates apart: acknowledged,
// failed for sure, in doubt. The demo, the benchmarks and the scenarios judge by its log. libpq alone, one thread;
// every wait has a limit, so that no hung host can hold it.
//
//   pgvigil-writer --uri URI --log FILE [--table T] [--seconds N] [--rate N] [--connect-ms N] [--answer-ms N]
//                   [--stay]
//     inserts until SIGTERM or N seconds; prints a summary (JSON). The limits are for one host (2000) and for one
//     answer (3000); 0 leaves them to libpq and what the URI says. --stay: a server that is read-only may be promoted
//     one day; its session is kept.
//   pgvigil-writer --uri URI --check FILE [--check FILE ...] [--table T]
//     is every acknowledged id there? exit 1 when one is missing
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// 0: libpq's own, by the URI.
struct Limits {
  milliseconds connect{2000};  // to one host
  milliseconds answer{3000};
};

constexpr const char* read_only = "25006";

constexpr milliseconds first_backoff{2};
constexpr milliseconds last_backoff{20};

volatile sig_atomic_t interrupted = 0;
void interrupt(int) {
  interrupted = 1;
}

enum class Fate : char { acknowledged = 'A', failed = 'F', in_doubt = 'D' };

// False after the deadline; without one, after a signal.
bool wait_for(PGconn* connection, short events, std::optional<Clock::time_point> deadline) {
  for (;;) {
    const auto left = deadline ? std::chrono::duration_cast<milliseconds>(*deadline - Clock::now()).count() : 1000;
    if (left <= 0 || PQsocket(connection) < 0 || (!deadline && interrupted != 0)) return false;
    pollfd entry{PQsocket(connection), events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

class Client {
 public:
  Client(std::string uri, std::string table, Limits limits, bool stay = false)
      : uri_(std::move(uri)), table_(std::move(table)), limits_(limits), stay_(stay) {
    read_hosts();
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connection_ != nullptr; }
  void close() {
    if (connection_ != nullptr) PQfinish(connection_);
    connection_ = nullptr;
  }

  // PQconnectPoll knows no connect_timeout, and a new attempt would begin with the same host: one that hangs (accepts
  // and says nothing) must not hide those after it, so the next attempt begins with the host behind it.
  bool connect() {
    close();
    if (limits_.connect == milliseconds{0}) return connect_as_libpq_does();
    const std::string hosts = rotated(hosts_);
    const std::string ports = rotated(ports_);
    const std::array<const char*, 4> keywords{"dbname", hosts_.empty() ? nullptr : "host",
                                              ports_.empty() ? nullptr : "port", nullptr};
    const std::array<const char*, 4> values{uri_.c_str(), hosts.c_str(), ports.c_str(), nullptr};
    connection_ = PQconnectStartParams(keywords.data(), values.data(), 1);
    if (connection_ == nullptr) return false;
    PQsetNoticeProcessor(connection_, &Client::on_notice, this);
    auto deadline = Clock::now() + limits_.connect;
    std::string host = current_host();
    short events = POLLOUT;
    for (;;) {
      if (PQstatus(connection_) == CONNECTION_BAD) break;
      if (host != current_host()) {
        host = current_host();
        deadline = Clock::now() + limits_.connect;
      }
      if (!wait_for(connection_, events, deadline)) {
        pass_over_current_host();
        break;
      }
      const auto status = PQconnectPoll(connection_);
      if (status == PGRES_POLLING_OK) return true;
      if (status == PGRES_POLLING_FAILED) break;
      events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    }
    close();
    return false;
  }

  // nullopt: no answer, the connection is closed then. Otherwise the SQLSTATE, "" for success.
  std::optional<std::string> run(const std::string& sql, std::vector<std::string>* first_column = nullptr) {
    warned_ = false;
    std::optional<Clock::time_point> deadline;
    if (limits_.answer > milliseconds{0}) deadline = Clock::now() + limits_.answer;
    if (PQsendQuery(connection_, sql.c_str()) == 0) {
      close();
      return std::nullopt;
    }
    std::string state;
    for (;;) {
      while (PQisBusy(connection_) != 0) {
        if (!wait_for(connection_, POLLIN, deadline) || PQconsumeInput(connection_) == 0) {
          close();
          return std::nullopt;
        }
      }
      const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQgetResult(connection_), PQclear);
      if (!result) break;
      const auto status = PQresultStatus(result.get());
      if (status == PGRES_TUPLES_OK && first_column != nullptr) {
        for (int row = 0; row < PQntuples(result.get()); ++row)
          first_column->emplace_back(PQgetvalue(result.get(), row, 0));
      }
      if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) continue;
      const char* code = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
      if (code == nullptr || PQstatus(connection_) == CONNECTION_BAD) {
        close();
        // A FATAL that ended the session before or after the commit: nobody can tell.
        return std::nullopt;
      }
      state = code;
    }
    if (PQstatus(connection_) == CONNECTION_BAD) {
      close();
      return std::nullopt;
    }
    return state;
  }

  Fate insert(std::int64_t id) {
    if (!connected()) return Fate::failed;
    std::vector<std::string> answer;
    const auto state = run("INSERT INTO " + table_ + " (id) VALUES (" + std::to_string(id) +
                               ") RETURNING substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
                           &answer);
    if (!state) return Fate::in_doubt;
    if (!answer.empty()) timeline_ = std::stoul(answer.front(), nullptr, 16);
    // "The transaction has already committed locally, but might not have been replicated": not acknowledged by the
    // quorum.
    if (state->empty()) return warned_ ? Fate::in_doubt : Fate::acknowledged;
    // admin_shutdown and crash_shutdown end a session at any point, also between commit and answer.
    const bool unclear = *state == "57P01" || *state == "57P02" || *state == "08006";
    look_elsewhere(*state);
    return unclear ? Fate::in_doubt : Fate::failed;
  }

  // Of the server that took the last row.
  unsigned long timeline() const { return timeline_; }

  bool create_table() {
    if (!connected()) return false;
    const auto state = run("SET client_min_messages = error; CREATE TABLE IF NOT EXISTS " + table_ +
                           " (id bigint PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT clock_timestamp()); RESET "
                           "client_min_messages");
    if (state && !state->empty()) look_elsewhere(*state);
    return state && state->empty();
  }

 private:
  // After a refusal; by --stay not after that of a standby.
  void look_elsewhere(const std::string& state) {
    if (!stay_ || state != read_only) close();
  }

  bool connect_as_libpq_does() {
    connection_ = PQconnectdb(uri_.c_str());
    if (PQstatus(connection_) == CONNECTION_OK) {
      PQsetNoticeProcessor(connection_, &Client::on_notice, this);
      return true;
    }
    close();
    return false;
  }

  std::string current_host() const {
    const char* const host = PQhost(connection_);
    const char* const port = PQport(connection_);
    return std::string(host == nullptr ? "" : host) + ":" + (port == nullptr ? "" : port);
  }

  static void on_notice(void* self, const char* message) {
    if (std::strstr(message, "WARNING") != nullptr) static_cast<Client*>(self)->warned_ = true;
  }

  static std::vector<std::string> split(const char* list) {
    std::vector<std::string> items;
    std::istringstream text(list == nullptr ? "" : list);
    for (std::string item; std::getline(text, item, ',');) items.push_back(item);
    if (!items.empty() && text.str().back() == ',')
      items.emplace_back();  // "5432," is two ports, the second the default
    return items;
  }

  // The lists of the URI; left empty where there is nothing to rotate, or where hostaddr or a list of another length
  // would get out of step.
  void read_hosts() {
    const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(PQconninfoParse(uri_.c_str(), nullptr),
                                                                               PQconninfoFree);
    bool addresses = false;
    for (const PQconninfoOption* option = options.get(); option != nullptr && option->keyword != nullptr; ++option) {
      if (std::strcmp(option->keyword, "host") == 0) hosts_ = split(option->val);
      if (std::strcmp(option->keyword, "port") == 0) ports_ = split(option->val);
      if (std::strcmp(option->keyword, "hostaddr") == 0) addresses = option->val != nullptr;
    }
    if (addresses || hosts_.size() < 2 || (ports_.size() > 1 && ports_.size() != hosts_.size())) hosts_.clear();
    if (hosts_.empty()) ports_.clear();
  }

  std::string rotated(const std::vector<std::string>& items) const {
    std::string text;
    for (std::size_t i = 0; i < items.size(); ++i) text += (i == 0 ? "" : ",") + items[(first_ + i) % items.size()];
    return text;
  }

  void pass_over_current_host() {
    const char* const host = PQhost(connection_);
    const char* const port = PQport(connection_);
    for (std::size_t i = 0; i < hosts_.size(); ++i) {
      const bool same_port = ports_.size() != hosts_.size() || (port != nullptr && ports_[i] == port);
      if (host != nullptr && hosts_[i] == host && same_port) {
        first_ = (i + 1) % hosts_.size();
        return;
      }
    }
  }

  std::string uri_;
  std::string table_;
  Limits limits_;
  bool stay_;
  std::vector<std::string> hosts_;
  std::vector<std::string> ports_;
  std::size_t first_{0};
  PGconn* connection_{nullptr};
  unsigned long timeline_{0};
  bool warned_{false};
};

struct Options {
  std::string uri;
  std::string log;
  std::string table{"vigil_ids"};
  std::vector<std::string> check;
  double seconds{0};
  double rate{0};
  Limits limits;
  bool stay{false};
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--stay") {
      options.stay = true;
      continue;
    }
    if (i + 1 >= argc) throw std::runtime_error("a value is missing after " + name);
    const std::string value = argv[++i];
    if (name == "--uri")
      options.uri = value;
    else if (name == "--log")
      options.log = value;
    else if (name == "--table")
      options.table = value;
    else if (name == "--check")
      options.check.push_back(value);
    else if (name == "--seconds")
      options.seconds = std::stod(value);
    else if (name == "--rate")
      options.rate = std::stod(value);
    else if (name == "--connect-ms")
      options.limits.connect = milliseconds{std::stoi(value)};
    else if (name == "--answer-ms")
      options.limits.answer = milliseconds{std::stoi(value)};
    else
      throw std::runtime_error("unknown option " + name);
  }
  if (options.uri.empty() || (options.log.empty() && options.check.empty()))
    throw std::runtime_error("--uri and --log or --check are needed");
  return options;
}

struct Gap {
  double start_ms;
  double ms;
};

int write(const Options& options) {
  Client client(options.uri, options.table, options.limits, options.stay);
  std::ofstream log(options.log, std::ios::app);
  if (!log) throw std::runtime_error("cannot write " + options.log);
  const auto begin = Clock::now();
  const auto ms_since_begin = [&](Clock::time_point at) {
    return std::chrono::duration<double, std::milli>(at - begin).count();
  };
  while (interrupted == 0 && !((client.connected() || client.connect()) && client.create_table())) ::usleep(20'000);
  // Ids grow over runs into the same table: seconds since 2020 in front.
  std::int64_t id = (static_cast<std::int64_t>(::time(nullptr)) - 1577836800) * 10'000'000;
  std::map<Fate, std::int64_t> counts;
  std::vector<Gap> gaps;
  std::optional<Clock::time_point> last;
  milliseconds backoff = first_backoff;
  std::int64_t attempts = 0;
  while (interrupted == 0 && (options.seconds <= 0 || ms_since_begin(Clock::now()) < options.seconds * 1000)) {
    if (!client.connected() && !client.connect()) {
      ::usleep(static_cast<useconds_t>(backoff.count() * 1000));
      backoff = std::min(backoff * 2, last_backoff);
      continue;
    }
    const Fate fate = client.insert(++id);
    const auto now = Clock::now();
    log << static_cast<char>(fate) << ' ' << id << ' ' << now.time_since_epoch().count();
    if (fate == Fate::acknowledged) log << ' ' << client.timeline();
    log << '\n';
    ++counts[fate];
    if (fate == Fate::acknowledged) {
      backoff = first_backoff;
      if (last) gaps.push_back({ms_since_begin(*last), std::chrono::duration<double, std::milli>(now - *last).count()});
      last = now;
      if (gaps.size() > 10000) {
        std::nth_element(gaps.begin(), gaps.begin() + 10, gaps.end(),
                         [](const Gap& a, const Gap& b) { return a.ms > b.ms; });
        gaps.resize(10);
      }
    } else {
      log.flush();
    }
    if (options.rate > 0) {
      ++attempts;
      const auto due = begin + std::chrono::duration_cast<Clock::duration>(
                                   std::chrono::duration<double>(static_cast<double>(attempts) / options.rate));
      if (due > now)
        ::usleep(static_cast<useconds_t>(std::chrono::duration_cast<std::chrono::microseconds>(due - now).count()));
    }
  }
  std::sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.ms > b.ms; });
  if (gaps.size() > 5) gaps.resize(5);
  std::printf("{\"acknowledged\": %lld, \"failed\": %lld, \"in_doubt\": %lld, \"longest_gap_ms\": %.1f, \"gaps\": [",
              static_cast<long long>(counts[Fate::acknowledged]), static_cast<long long>(counts[Fate::failed]),
              static_cast<long long>(counts[Fate::in_doubt]), gaps.empty() ? 0.0 : gaps.front().ms);
  for (std::size_t i = 0; i < gaps.size(); ++i) {
    std::printf("%s{\"start_ms\": %.1f, \"ms\": %.1f}", i == 0 ? "" : ", ", gaps[i].start_ms, gaps[i].ms);
  }
  std::printf("]}\n");
  return 0;
}

int check(const Options& options) {
  std::map<Fate, std::vector<std::int64_t>> logged;
  for (const std::string& file : options.check) {
    std::ifstream log(file);
    if (!log) throw std::runtime_error("cannot read " + file);
    for (std::string line; std::getline(log, line);) {
      std::istringstream fields(line);
      char fate = 0;
      std::int64_t id = 0;
      std::int64_t at = 0;
      if (fields >> fate >> id >> at) logged[static_cast<Fate>(fate)].push_back(id);  // a torn last line is skipped
    }
  }
  Client client(options.uri, options.table, options.limits);
  const auto deadline = Clock::now() + std::chrono::seconds{60};
  std::vector<std::string> column;
  for (;;) {
    column.clear();
    if (client.connect()) {
      const auto state = client.run("SELECT id FROM " + options.table, &column);
      if (state && state->empty()) break;
    }
    if (Clock::now() >= deadline) throw std::runtime_error("no read-write server answers");
    ::usleep(100'000);
  }
  std::set<std::int64_t> present;
  for (const std::string& text : column) present.insert(std::stoll(text));
  const auto count_present = [&](Fate fate) {
    return std::count_if(logged[fate].begin(), logged[fate].end(),
                         [&](std::int64_t id) { return present.contains(id); });
  };
  const auto acknowledged = static_cast<long>(logged[Fate::acknowledged].size());
  const long missing = acknowledged - count_present(Fate::acknowledged);
  std::printf(
      "{\"acknowledged\": %ld, \"missing\": %ld, \"in_doubt\": %zu, \"in_doubt_present\": %ld, \"failed_present\": "
      "%ld}\n",
      acknowledged, missing, logged[Fate::in_doubt].size(), count_present(Fate::in_doubt), count_present(Fate::failed));
  return missing == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    struct sigaction action {};
    action.sa_handler = interrupt;
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    const Options options = parse(argc, argv);
    return options.check.empty() ? write(options) : check(options);
  } catch (const std::exception& error) {
    std::cerr << "pgvigil-writer: error: " << error.what() << std::endl;
    return 2;
  }
}
