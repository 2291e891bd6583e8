// Child processes on Asio, and pidfds of any process.
#pragma once
#include <sys/types.h>

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pgvigil::os {

using Millis = std::chrono::milliseconds;

struct ProcessResult {
  int exit_code{-1};  // -1 when ended by a signal
  int signal{0};
  bool timed_out{false};
  // stdout and stderr as they came, the last 64 KiB; says so when it ran out of time or was ended by a signal
  std::string output;
  bool ok() const { return exit_code == 0; }
  std::string last_line() const;  // of the output
};

struct ProcessOptions {
  std::optional<Millis> timeout{std::chrono::hours{24}};  // nullopt: as long as it takes
  std::map<std::string, std::string> environment;         // added to our own
  std::function<void(const std::string&)> on_line;        // each complete line of output (also cut at '\r': progress)
  std::filesystem::path working_directory;
};

// Runs a program in a process group of its own, waits for its end, and ends what it has left in that group: its last
// words are waited for, for a second. When it runs out of time or the wait is cancelled, the whole group gets SIGTERM,
// after 2 s SIGKILL, and is reaped. No shell. The child gets default signal handlers and an empty signal mask, and dies
// with us only through that: a daemon killed by SIGKILL leaves it running unless `PR_SET_PDEATHSIG` (which is set; its
// own children have to be looked for).
boost::asio::awaitable<ProcessResult> run(std::vector<std::string> argv, ProcessOptions options);
// No default argument above: GCC 12 destroys such a temporary twice in a co_await expression.
boost::asio::awaitable<ProcessResult> run(std::vector<std::string> argv);

// Starts a program in a session of its own and in `directory`; it goes on without us (a postmaster), its output
// appended to `log`. It must NOT get PR_SET_PDEATHSIG. It may be our child: its end is reaped by whoever watches its
// PidFd. Returns its pid.
pid_t spawn_detached(const std::vector<std::string>& argv, const std::filesystem::path& log,
                     const std::filesystem::path& directory);

// A handle on a process, child or not, that can't be fooled by a reused pid.
class PidFd {
 public:
  // nullopt: no such process. Throws pgvigil::Error when there may be one and it cannot be watched (too many open
  // files).
  static std::optional<PidFd> open(pid_t pid);
  PidFd(PidFd&&) noexcept;
  PidFd& operator=(PidFd&&) noexcept;
  ~PidFd();
  pid_t pid() const;
  bool alive() const;             // reaps it when it was a child of ours
  void signal(int number) const;  // no error when it has gone
  int exit_status() const;        // as waitpid's, once alive() is false, of a child of ours; else 0
  // Returns when the process has ended (true) or after `timeout` (false). Cancellable.
  boost::asio::awaitable<bool> wait_exit(Millis timeout) const;

 private:
  struct Impl;
  explicit PidFd(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace pgvigil::os
