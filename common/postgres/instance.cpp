#include "common/postgres/instance.hpp"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "common/log/log.hpp"
#include "common/os/event.hpp"
#include "common/os/file.hpp"
#include "common/os/race.hpp"
#include "common/pg/connection.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/config_files.hpp"
#include "common/postgres/data_directory.hpp"

namespace pgvigil::postgres {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

std::optional<int> to_number(const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end == text.data()) return std::nullopt;
  return number;
}

struct ProcessInfo {
  char state{'?'};
  pid_t parent{0};
};

// The third and fourth fields of /proc/<pid>/stat; the second, the name, may itself hold spaces and parentheses.
std::optional<ProcessInfo> process_info(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const auto close = line.rfind(')');
  if (close == std::string::npos || close + 4 > line.size()) return std::nullopt;
  std::istringstream rest(line.substr(close + 2));
  ProcessInfo info;
  rest >> info.state >> info.parent;
  return info;
}

// Every PostgreSQL process changes its working directory to its data directory, and ours are started in it. Compared by
// what they are: the path of a process in another mount namespace (of a service that was started earlier) may have
// another beginning.
bool runs_here(pid_t pid, const fs::path& pgdata) {
  std::error_code error;
  const std::string proc = "/proc/" + std::to_string(pid);
  // First, for it touches no file system: the shell of somebody may stand in one that hangs.
  const std::string exe = fs::read_symlink(proc + "/exe", error).filename().string();
  if (exe != "postgres" && !exe.starts_with("postgres ")) return false;  // "postgres (deleted)" after an upgrade
  struct stat cwd {};
  struct stat here {};
  if (::stat((proc + "/cwd").c_str(), &cwd) != 0 || ::stat(pgdata.c_str(), &here) != 0) return false;
  return cwd.st_dev == here.st_dev && cwd.st_ino == here.st_ino;
}

std::vector<pid_t> processes_of(const fs::path& pgdata) {
  std::vector<pid_t> pids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const auto pid = to_number(entry.path().filename().string());
    if (pid && runs_here(*pid, pgdata)) pids.push_back(*pid);
  }
  return pids;
}

// Where a lock file is empty, or has zeros in it, as after a loss of power. A server that begins has it so for a
// moment.
bool damaged(const fs::path& lock_file, const std::string& text) {
  std::error_code error;
  const auto age = fs::file_time_type::clock::now() - fs::last_write_time(lock_file, error);
  return !error && text.find_first_not_of('\0') == std::string::npos && age > std::chrono::seconds{5};
}

// Of a server that has ended, and nobody runs in `pgdata`. PostgreSQL asks only whether a process of that number lives,
// and refuses to start for a zombie (which lasts where process 1 does not reap, or while a stopped parent does not),
// for whoever has got the number since, and for a file that says nothing. All other stale lock files it judges better
// itself; also whether the shared memory that is named in one is in use, so that stays where it can.
void free_lock(const fs::path& lock_file, const fs::path& pgdata) {
  const auto text = os::read_file(lock_file);
  if (!text) return;
  if (damaged(lock_file, *text)) {
    log::warn("{} is empty, and nobody runs in {}: removed", lock_file.string(), pgdata.string());
    fs::remove(lock_file);
    return;
  }
  const auto end_of_pid = text->find('\n');
  const auto pid = to_number(*text);
  if (!pid || *pid <= 0 || end_of_pid == std::string::npos) return;
  const auto process = process_info(*pid);
  std::error_code error;
  const std::string directory = text->substr(end_of_pid + 1, text->find('\n', end_of_pid + 1) - end_of_pid - 1);
  if (!process || !fs::equivalent(directory, pgdata, error) || runs_here(*pid, pgdata)) return;
  log::info("{} is of a server that has ended; process {} is {}", lock_file.string(), *pid,
            process->state == 'Z' ? "all that is left of it" : "somebody else");
  constexpr const char* nobody = "2147483646";  // above pid_max
  os::write_file_atomic(lock_file, nobody + text->substr(end_of_pid), 0600);
}

asio::awaitable<void> end_leftovers(const InstanceSettings& settings) {
  const fs::path& pgdata = settings.pgdata;
  for (int round = 0; round < 500; ++round) {
    const auto pids = processes_of(pgdata);
    if (pids.empty()) {
      free_lock(pgdata / "postmaster.pid", pgdata);
      free_lock(settings.socket_directory / (".s.PGSQL." + std::to_string(settings.port) + ".lock"), pgdata);
      co_return;
    }
    if (round % 50 == 0) {
      for (const pid_t pid : pids) ::kill(pid, SIGKILL);
    }
    co_await os::sleep_for(Millis{10});
  }
  throw UserError(ExitCode::postgres, "processes of " + pgdata.string() + " survive SIGKILL",
                  "look for a hung disk (state D in ps)");
}

bool is_child(pid_t pid, pid_t parent) {
  const auto info = process_info(pid);
  return info && info->parent == parent;
}

// As PostgreSQL has set it; "" when the process has gone.
std::string title_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
  std::string title;
  std::getline(file, title);
  return title;
}

// A child of the postmaster that has `words` in its title and is none of `others`.
bool has_child(const fs::path& pgdata, pid_t postmaster, const char* words, const std::vector<pid_t>& others) {
  const auto pids = processes_of(pgdata);
  return std::any_of(pids.begin(), pids.end(), [&](pid_t pid) {
    return is_child(pid, postmaster) && std::find(others.begin(), others.end(), pid) == others.end() &&
           title_of(pid).find(words) != std::string::npos;
  });
}

// A walsender. It may be the successor's.
bool serves_others(const fs::path& pgdata, pid_t postmaster, const std::vector<pid_t>& expendable) {
  return has_child(pgdata, postmaster, "walsender ", expendable);
}

std::size_t not_archived(const fs::path& pgdata) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(pgdata / "pg_wal" / "archive_status", error)) {
    if (entry.path().extension() == ".ready") ++count;
  }
  return count;
}

// A postmaster that stops waits until each walsender has got an answer for the last record, and the archiver has
// archived all: as long as that takes. When the control file says "shut down" the last record is written (xlog.c,
// ShutdownXLOG()), and with nobody left who needs it nothing is lost by an end at once.
asio::awaitable<void> hasten(const Instance& instance, const os::PidFd& postmaster, std::vector<pid_t> expendable) {
  constexpr Millis patience_with_walsenders{1000};
  constexpr Millis patience_with_the_rest{2000};
  constexpr Millis patience_with_the_archiver{15000};
  constexpr Millis pause{200};
  const fs::path pgdata = instance.settings().pgdata;
  co_await os::sleep_for(patience_with_walsenders);
  // One that hangs in sending its last words to a client that takes none is freed by being told again (postgres.c,
  // ProcessClientWriteInterrupt()).
  for (std::string state; state != "shut down";) {
    for (const pid_t pid : expendable) {
      if (is_child(pid, postmaster.pid())) ::kill(pid, SIGTERM);
    }
    co_await os::sleep_for(pause);
    const ControlData control = co_await instance.control_data();
    state = control.state;
  }
  co_await os::sleep_for(patience_with_the_rest);
  // A gap in the archive is worse than some seconds without writes; an archiver that hangs would take for ever.
  for (Millis waited{0}; not_archived(pgdata) > 0 && waited < patience_with_the_archiver; waited += pause) {
    co_await os::sleep_for(pause);
  }
  while (serves_others(pgdata, postmaster.pid(), expendable)) co_await os::sleep_for(pause);
  log::warn("PostgreSQL has shut down and does not end: it is ended, for another node waits to take over");
  if (const std::size_t files = not_archived(pgdata); files > 0)
    log::warn("{} files of WAL were not archived: take a base backup of the next primary for the archive", files);
  postmaster.signal(SIGQUIT);
}

asio::awaitable<bool> has_own_settings(pg::Connection& local, const fs::path& pgdata) {
  if (!fs::exists(pgdata / settings_file)) co_return true;
  const pg::Result row = co_await local.query("SELECT count(*) > 0 AS any FROM pg_settings WHERE sourcefile LIKE '%/" +
                                              std::string(settings_file) + "'");
  co_return row.text(0, "any") == "t";
}

std::string log_tail(const fs::path& log, std::uintmax_t from) {
  std::ifstream file(log);
  file.seekg(static_cast<std::streamoff>(from));
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(line);
    if (lines.size() > 10) lines.erase(lines.begin());
  }
  std::string text;
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

}  // namespace

fs::path find_bindir(const std::optional<fs::path>& pg_ctl) {
  // A directory that may not be read counts as one without the programs.
  const auto complete = [](const fs::path& directory) {
    std::error_code unreadable;
    for (const char* program : {"postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"}) {
      if (!fs::exists(directory / program, unreadable)) return false;
    }
    return true;
  };
  if (pg_ctl) {
    const fs::path given = fs::absolute(*pg_ctl).lexically_normal();
    const fs::path directory = fs::is_directory(given) ? given : given.parent_path();
    if (complete(directory)) return directory;
    throw UserError(
        ExitCode::bad_arguments,
        "not all of postgres, initdb, pg_controldata, pg_basebackup, pg_rewind are beside " + pg_ctl->string(),
        "name the pg_ctl of a PostgreSQL server");
  }
  const char* path = std::getenv("PATH");
  std::istringstream directories(path == nullptr ? "" : path);
  for (std::string directory; std::getline(directories, directory, ':');) {
    if (!directory.empty() && complete(directory)) return directory;
  }
  int newest = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/usr/lib/postgresql", error)) {
    const auto version = to_number(entry.path().filename().string());
    if (version && *version > newest && complete(entry.path() / "bin")) newest = *version;
  }
  if (newest > 0) return fs::path("/usr/lib/postgresql") / std::to_string(newest) / "bin";
  throw UserError(ExitCode::bad_arguments, "no PostgreSQL server was found in PATH or /usr/lib/postgresql",
                  "install one, or give --pgctl");
}

PidFile read_pid_file(const fs::path& pgdata) {
  std::istringstream text(os::read_file(pgdata / "postmaster.pid").value_or(""));
  std::array<std::string, 8> lines;
  for (std::string& line : lines) std::getline(text, line);
  return {lines[0], lines[3], lines[4], lines[7]};
}

Instance::Instance(InstanceSettings settings) : settings_(std::move(settings)) {}

bool Instance::has_cluster() const {
  return fs::exists(settings_.pgdata / "PG_VERSION") && !initdb_unfinished();
}

fs::path Instance::initdb_marker() const {
  return settings_.log.parent_path() / "initdb-in-progress";
}

bool Instance::initdb_unfinished() const {
  return fs::exists(initdb_marker());
}

bool Instance::directory_is_empty() const {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(settings_.pgdata, error)) {
    if (entry.path().filename() != "lost+found") return false;
  }
  return true;
}

int Instance::major_version() const {
  return to_number(os::read_file(settings_.pgdata / "PG_VERSION").value_or("0")).value_or(0);
}

fs::path Instance::config_file() const {
  return settings_.config_file.empty() ? settings_.pgdata / "postgresql.conf" : settings_.config_file;
}
fs::path Instance::hba_file() const {
  return settings_.hba_file.empty() ? settings_.pgdata / "pg_hba.conf" : settings_.hba_file;
}

// The programs of an initdb that was killed may be writing still.
asio::awaitable<void> Instance::clear_unfinished_initdb() {
  if (!initdb_unfinished()) co_return;
  const fs::path marker = initdb_marker();
  if (const std::string found = not_of_initdb(settings_.pgdata); !found.empty()) {
    throw UserError(ExitCode::bad_arguments,
                    "an initdb was interrupted in " + settings_.pgdata.string() + ", but " + found +
                        " there is not of it: nothing is removed",
                    "when the cluster is whole, remove " + marker.string() + "; else empty the directory");
  }
  co_await end_leftovers(settings_);
  empty_directory(settings_.pgdata);
  os::remove_for_good(marker);
}

asio::awaitable<void> Instance::initdb(std::string auth) {
  co_await clear_unfinished_initdb();
  if (!directory_is_empty())
    throw UserError(ExitCode::bad_arguments, settings_.pgdata.string() + " is not empty", "empty it");
  os::write_file_atomic(initdb_marker(), "");
  os::make_directories(settings_.pgdata, 0700);
  // Local sessions prove themselves by their OS user; another superuser name has to rely on the socket directory's mode
  // (0700).
  const bool same_user = settings_.superuser.empty();
  std::vector<std::string> argv{(settings_.bindir / "initdb").string(),
                                "--pgdata=" + settings_.pgdata.string(),
                                "--data-checksums",
                                "--encoding=UTF8",
                                "--locale=C.UTF-8",
                                std::string("--auth-local=") + (same_user ? "peer" : "trust"),
                                "--auth-host=" + auth};
  if (!same_user) argv.push_back("--username=" + settings_.superuser);
  const os::ProcessResult result = co_await os::run(argv);
  if (!result.ok()) throw UserError(ExitCode::postgres, "initdb failed: " + result.output);
  os::remove_for_good(initdb_marker());
}

std::optional<os::PidFd> Instance::postmaster() const {
  const auto pid = to_number(read_pid_file(settings_.pgdata).pid);
  if (!pid || *pid <= 0 || !runs_here(*pid, settings_.pgdata)) return std::nullopt;
  auto process = os::PidFd::open(*pid);
  if (!process || !process->alive() || !runs_here(*pid, settings_.pgdata)) return std::nullopt;
  return process;
}

asio::awaitable<void> Instance::start(Millis timeout, std::map<std::string, std::string> settings) {
  auto process = postmaster();
  const bool was_there = process.has_value();
  std::error_code error;
  const auto log_size = fs::file_size(settings_.log, error);
  const std::uintmax_t log_from = error ? 0 : log_size;
  if (!process) {
    // Backends may outlive a postmaster that was killed; they could still write.
    co_await end_leftovers(settings_);
    std::vector<std::string> argv{(settings_.bindir / "postgres").string(), "-D", settings_.pgdata.string()};
    if (!settings_.config_file.empty())
      argv.insert(argv.end(), {"-c", "config_file=" + settings_.config_file.string()});
    for (const auto& [name, value] : settings) argv.insert(argv.end(), {"-c", name + "=" + value});
    // In PGDATA from the first moment: it goes there by itself only when it has read its configuration, and until then
    // a stop would not find it.
    const pid_t pid = os::spawn_detached(argv, settings_.log, settings_.pgdata);
    process = os::PidFd::open(pid);
  }
  const auto deadline = Clock::now() + timeout;
  Asking asking;
  std::string last;
  for (;;) {
    if (!process || !process->alive()) {
      throw UserError(ExitCode::postgres, "PostgreSQL does not start:" + log_tail(settings_.log, log_from),
                      "see " + settings_.log.string());
    }
    bool stranger = !elsewhere(*process).empty();
    try {
      if (!stranger && asking.due(*this)) {
        pg::Connection probe = co_await pg::Connection::connect(local_conninfo(), Millis{1000});
        if (was_there) co_return;
        stranger = !co_await has_own_settings(probe, settings_.pgdata);
        if (!stranger) co_return;
      }
    } catch (const pg::ConnectionError& failure) {
      last = failure.what();
    }
    if (stranger) {
      co_await stop(StopMode::fast, Millis{5000});  // its sessions end at once
      throw UserError(ExitCode::postgres,
                      "PostgreSQL came up without pgvigil's settings, and was stopped: was " + config_file().string() +
                          " just being written?",
                      "its last line is to include " + std::string(settings_file));
    }
    if (Clock::now() >= deadline) {
      throw UserError(ExitCode::postgres, "PostgreSQL runs but accepts no session yet: " + last,
                      "see " + settings_.log.string());
    }
    co_await process->wait_exit(Millis{10});
  }
}

bool Instance::starting() const {
  return read_pid_file(settings_.pgdata).status.starts_with("starting");
}

bool Asking::due(const Instance& instance) {
  const auto now = Clock::now();
  if (now - asked_ < std::chrono::seconds{1} && instance.starting()) return false;
  asked_ = now;
  return true;
}

std::string Instance::elsewhere(const os::PidFd& postmaster) const {
  const PidFile file = read_pid_file(settings_.pgdata);
  if (to_number(file.pid) != postmaster.pid()) return {};  // it has not written it yet
  const bool same = to_number(file.port).value_or(settings_.port) == settings_.port &&
                    (file.socket_directory.empty() || file.socket_directory == settings_.socket_directory);
  return same ? "" : "port " + file.port + ", sockets in \"" + file.socket_directory + "\"";
}

asio::awaitable<void> Instance::stop(StopMode mode, Millis timeout) {
  std::vector<int> signals;
  // In crash recovery there is nothing to finish in order, and a fast stop would never end: the postmaster waits for
  // its checkpointer, which nobody has told to go.
  if (mode != StopMode::immediate && starting()) mode = StopMode::immediate;
  if (mode == StopMode::smart) signals.push_back(SIGTERM);
  if (mode != StopMode::immediate) signals.push_back(SIGINT);
  signals.push_back(SIGQUIT);
  if (const auto process = postmaster()) {
    for (const int number : signals) {
      const auto info = process_info(process->pid());
      if (info && (info->state == 'T' || info->state == 't')) break;  // stopped (SIGSTOP): takes no signal but SIGKILL
      process->signal(number);
      if (co_await process->wait_exit(timeout)) break;
      log::warn("PostgreSQL did not stop on signal {} within {} ms", number, timeout.count());
    }
  }
  co_await end_leftovers(settings_);
}

asio::awaitable<void> Instance::stop_for_successor(std::vector<pid_t> expendable, Millis timeout) {
  const auto process = postmaster();
  const auto help = [&]() -> asio::awaitable<void> {
    std::string failure;
    try {
      if (process) co_await hasten(*this, *process, expendable);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) log::debug("the stop is not hastened: {}", failure);
    for (;;) co_await os::sleep_for(std::chrono::hours{1});  // the stop says when it is over
  };
  co_await os::race(stop(StopMode::fast, timeout), help());
}

void Instance::kill() const {
  if (const auto process = postmaster()) process->signal(SIGKILL);  // before it starts others
  for (const pid_t pid : processes_of(settings_.pgdata)) ::kill(pid, SIGKILL);
}

void Instance::reload() const {
  if (const auto process = postmaster()) process->signal(SIGHUP);
}

bool Instance::has_walreceiver(const std::vector<pid_t>& others) const {
  const auto process = postmaster();
  return process && has_child(settings_.pgdata, process->pid(), "walreceiver", others);
}

std::string Instance::local_conninfo(const std::string& dbname) const {
  pg::ConninfoMap values{
      {"host", settings_.socket_directory.string()}, {"port", std::to_string(settings_.port)}, {"dbname", dbname}};
  if (!settings_.superuser.empty()) values["user"] = settings_.superuser;
  return pg::to_conninfo(values);
}

}  // namespace pgvigil::postgres
