#include "common/os/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <cerrno>
#include <cstring>

#include "common/model/types.hpp"
#include "common/os/core_limit.hpp"
#include "common/os/event.hpp"
#include "common/os/race.hpp"

extern char** environ;  // NOLINT: POSIX

namespace pgvigil::os {

namespace asio = boost::asio;
using namespace asio::experimental::awaitable_operators;

namespace {

constexpr std::size_t kept_output = 64 * 1024;
constexpr Millis patience_with_last_words{1000};

int pidfd_open(pid_t pid) {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}
int pidfd_send(int fd, int number) {
  return static_cast<int>(::syscall(SYS_pidfd_send_signal, fd, number, nullptr, 0));
}

// Debian's PostgreSQL would tell the service manager that *it* is ready, and stopping, in our name.
bool ours_alone(const std::string& variable) {
  return variable == "NOTIFY_SOCKET" || variable == "WATCHDOG_USEC" || variable == "WATCHDOG_PID";
}

// Everything that exec needs, prepared before fork: after it only async-signal-safe calls are allowed.
struct Image {
  std::vector<std::string> storage;
  std::vector<char*> argv;
  std::vector<char*> envp;

  Image(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment) {
    if (arguments.empty()) throw Error("no program to run");
    storage = arguments;
    const std::size_t count = storage.size();
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      const std::string name = text.substr(0, text.find('='));
      if (!environment.contains(name) && !ours_alone(name)) storage.push_back(text);
    }
    for (const auto& [name, value] : environment) storage.push_back(name + "=" + value);
    for (std::size_t i = 0; i < storage.size(); ++i) (i < count ? argv : envp).push_back(storage[i].data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
  }
};

struct Spawn {
  bool own_session{false};
  bool die_with_us{false};
  int output{-1};
  std::string directory;
};

[[noreturn]] void child_main(const Image& image, const Spawn& how, int report, pid_t parent) {
  if (how.own_session) {
    ::setsid();
  } else {
    ::setpgid(0, 0);
  }
  if (how.die_with_us) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
  }
  give_back_core_limit();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD}) ::signal(number, SIG_DFL);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  ::dup2(how.output, 1);
  ::dup2(how.output, 2);
  // Sockets to the monitor and lock files must not live on in a postmaster.
  ::syscall(SYS_close_range, 3U, static_cast<unsigned>(report) - 1U, 0U);
  ::syscall(SYS_close_range, static_cast<unsigned>(report) + 1U, ~0U, 0U);
  // PostgreSQL's programs want to come back to where they were started, and the shell of root stands in /root.
  if (::chdir(how.directory.empty() ? "/" : how.directory.c_str()) == 0)
    ::execvpe(image.argv[0], image.argv.data(), image.envp.data());
  const int reason = errno;
  [[maybe_unused]] const ssize_t written = ::write(report, &reason, sizeof reason);
  ::_exit(127);
}

// Returns the pid once exec has succeeded.
pid_t spawn(const Image& image, const Spawn& how) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) throw Error("pipe: " + std::string(std::strerror(errno)));
  // The child closes all other descriptors: keep the report pipe away from the standard ones.
  const int high = ::fcntl(report[1], F_DUPFD_CLOEXEC, 100);
  ::close(report[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) child_main(image, how, high, parent);
  ::close(high);
  if (pid < 0) {
    ::close(report[0]);
    throw Error("fork: " + std::string(std::strerror(errno)));
  }
  int reason = 0;
  const ssize_t got = ::read(report[0], &reason, sizeof reason);
  ::close(report[0]);
  if (got == static_cast<ssize_t>(sizeof reason)) {
    ::waitpid(pid, nullptr, 0);
    throw Error("cannot run " + std::string(image.argv[0]) + ": " + std::strerror(reason));
  }
  return pid;
}

// A program and what it has started, in a process group of its own. Nobody else reaps it: until then its number, which
// is the group's too, is nobody else's. Ends the group when the coroutine that waits for it goes away early.
class Group {
 public:
  Group(const asio::any_io_executor& executor, pid_t pid) : pid_(pid), end_(executor) {}
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  ~Group() {
    if (reaped_) return;
    ::kill(-pid_, SIGTERM);
    for (int i = 0; i < 40; ++i) {
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
        ::kill(-pid_, SIGKILL);
        return;
      }
      ::usleep(50'000);
    }
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  void watch() {
    const int fd = pidfd_open(pid_);
    if (fd < 0) throw Error("process " + std::to_string(pid_) + " cannot be watched: " + std::strerror(errno));
    end_.assign(fd);
  }
  // Of the program itself.
  asio::awaitable<void> ended() { co_await end_.async_wait(end_.wait_read, asio::use_awaitable); }
  // Once it has ended: so does what it has started and left. Returns its status, as waitpid.
  int finish() {
    ::kill(-pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, WNOHANG);
    reaped_ = true;
    return status;
  }

 private:
  pid_t pid_;
  asio::posix::stream_descriptor end_;
  bool reaped_{false};
};

void take_lines(std::string& line, const char* data, std::size_t size,
                const std::function<void(const std::string&)>& on_line) {
  for (std::size_t i = 0; i < size; ++i) {
    if (data[i] != '\n' && data[i] != '\r') {
      line += data[i];
      continue;
    }
    if (!line.empty() && on_line) on_line(line);
    line.clear();
  }
}

asio::awaitable<void> read_output(asio::posix::stream_descriptor& pipe, ProcessResult& result,
                                  const std::function<void(const std::string&)>& on_line) {
  char buffer[4096];
  std::string line;
  for (;;) {
    boost::system::error_code error;
    const std::size_t got =
        co_await pipe.async_read_some(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) throw boost::system::system_error(error);
    if (error) break;
    result.output.append(buffer, got);
    if (result.output.size() > kept_output) result.output.erase(0, result.output.size() - kept_output);
    take_lines(line, buffer, got, on_line);
  }
  if (!line.empty() && on_line) on_line(line);
}

// Until the last process of the group has closed the output. One that outlives the program may never do it (the child
// of a pg_basebackup that was killed goes on receiving WAL): it has some time to say its last words.
asio::awaitable<void> attend_to(Group& group, asio::posix::stream_descriptor& pipe, ProcessResult& result,
                                const std::function<void(const std::string&)>& on_line) {
  const auto outlived = [&]() -> asio::awaitable<void> {
    co_await group.ended();
    co_await sleep_for(patience_with_last_words);
  };
  co_await race(read_output(pipe, result, on_line), outlived());
  co_await group.ended();  // it may have closed its output and go on
}

asio::awaitable<void> time_is_over(std::optional<Millis> limit) {
  if (limit) co_await sleep_for(*limit);
  while (!limit) co_await sleep_for(std::chrono::hours{1});
}

void add_line(std::string& text, const std::string& line) {
  if (!text.empty() && text.back() != '\n') text += '\n';
  text += line;
}

}  // namespace

std::string ProcessResult::last_line() const {
  const auto end = output.find_last_not_of("\r\n");
  if (end == std::string::npos) return {};
  const auto before = output.find_last_of("\r\n", end);
  const auto begin = before == std::string::npos ? 0 : before + 1;
  return output.substr(begin, end + 1 - begin);
}

asio::awaitable<ProcessResult> run(std::vector<std::string> argv, ProcessOptions options) {
  const Image image(argv, options.environment);
  int output[2];
  if (::pipe2(output, O_CLOEXEC) != 0) throw Error("pipe: " + std::string(std::strerror(errno)));
  asio::posix::stream_descriptor pipe(co_await asio::this_coro::executor, output[0]);
  Spawn how;
  how.die_with_us = true;
  how.output = output[1];
  how.directory = options.working_directory.string();
  pid_t pid = 0;
  try {
    pid = spawn(image, how);
  } catch (...) {
    ::close(output[1]);
    throw;
  }
  ::close(output[1]);
  Group group(co_await asio::this_coro::executor, pid);
  group.watch();
  ProcessResult result;
  const auto limit = [&]() -> asio::awaitable<void> {
    co_await time_is_over(options.timeout);
    result.timed_out = true;
  };
  co_await race(attend_to(group, pipe, result, options.on_line), limit());
  if (result.timed_out) {
    add_line(result.output, argv.front() + " was ended after " + std::to_string(options.timeout->count()) + " ms");
    co_return result;  // the group ends with us
  }
  const int status = group.finish();
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) {
    result.signal = WTERMSIG(status);
    add_line(result.output, argv.front() + " was ended by signal " + std::to_string(result.signal));
  }
  co_return result;
}

asio::awaitable<ProcessResult> run(std::vector<std::string> argv) {
  ProcessOptions options;
  co_return co_await run(std::move(argv), std::move(options));
}

pid_t spawn_detached(const std::vector<std::string>& argv, const std::filesystem::path& log,
                     const std::filesystem::path& directory) {
  const Image image(argv, {});
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) throw Error("cannot open " + log.string() + ": " + std::strerror(errno));
  Spawn how;
  how.own_session = true;
  how.output = fd;
  how.directory = directory.string();
  try {
    const pid_t pid = spawn(image, how);
    ::close(fd);
    return pid;
  } catch (...) {
    ::close(fd);
    throw;
  }
}

struct PidFd::Impl {
  int fd{-1};
  pid_t pid{0};
  bool ended{false};
  int status{0};
  ~Impl() {
    if (fd >= 0) ::close(fd);
  }
};

PidFd::PidFd(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
PidFd::PidFd(PidFd&&) noexcept = default;
PidFd& PidFd::operator=(PidFd&&) noexcept = default;
PidFd::~PidFd() = default;

std::optional<PidFd> PidFd::open(pid_t pid) {
  auto impl = std::make_shared<Impl>();
  impl->pid = pid;
  impl->fd = pidfd_open(pid);
  if (impl->fd < 0 && errno != ESRCH && errno != EINVAL) {  // EINVAL: a thread's number
    throw Error("process " + std::to_string(pid) + " cannot be watched: " + std::strerror(errno));
  }
  if (impl->fd < 0) return std::nullopt;
  return PidFd(std::move(impl));
}

pid_t PidFd::pid() const {
  return impl_->pid;
}
int PidFd::exit_status() const {
  return impl_->status;
}

bool PidFd::alive() const {
  if (impl_->ended) return false;
  // Readable from the process's end on, also while its own parent has not reaped it.
  pollfd entry{impl_->fd, POLLIN, 0};
  if (::poll(&entry, 1, 0) <= 0) return true;
  ::waitpid(impl_->pid, &impl_->status, WNOHANG);  // no child of ours: ECHILD, and nothing to do
  impl_->ended = true;
  return false;
}

void PidFd::signal(int number) const {
  pidfd_send(impl_->fd, number);
}

asio::awaitable<bool> PidFd::wait_exit(Millis timeout) const {
  const auto impl = impl_;
  if (!alive()) co_return true;
  const auto executor = co_await asio::this_coro::executor;
  // A pidfd becomes readable when the process has ended. Asio closes what it is given: give it a duplicate.
  asio::posix::stream_descriptor watched(executor, ::dup(impl->fd));
  asio::steady_timer timer(executor);
  timer.expires_after(timeout);
  const auto outcome = co_await (watched.async_wait(asio::posix::stream_descriptor::wait_read, asio::use_awaitable) ||
                                 timer.async_wait(asio::use_awaitable));
  if (outcome.index() == 1) co_return !alive();
  co_return !alive();
}

}  // namespace pgvigil::os
