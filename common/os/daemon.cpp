#include "common/os/daemon.hpp"

#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/signal_set.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/model/types.hpp"
#include "common/os/core_limit.hpp"

namespace pgvigil::os {

void refuse_root() {
  if (::geteuid() == 0) {
    throw UserError(ExitCode::bad_arguments, "this must not run as root: PostgreSQL refuses to",
                    "run it as the user that owns PGDATA, for example by `runuser -u postgres --`");
  }
}

void become_owner_of(const std::filesystem::path& path) {
  struct stat info {};
  if (::geteuid() != 0 || ::stat(path.c_str(), &info) != 0 || info.st_uid == 0) return;
  const passwd* user = ::getpwuid(info.st_uid);
  const gid_t group = user != nullptr ? user->pw_gid : info.st_gid;
  const int groups = user != nullptr ? ::initgroups(user->pw_name, group) : ::setgroups(0, nullptr);
  if (groups != 0 || ::setgid(group) != 0 || ::setuid(info.st_uid) != 0)
    throw Error("cannot become the owner of " + path.string() + ": " + std::strerror(errno));
}

void clear_postgres_environment() {
  for (const char* name :
       {"PGAPPNAME", "PGCHANNELBINDING", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGDATA", "PGDATABASE", "PGHOST",
        "PGHOSTADDR", "PGOPTIONS", "PGPASSFILE", "PGPASSWORD", "PGPORT", "PGREQUIREPEER", "PGREQUIRESSL", "PGSERVICE",
        "PGSERVICEFILE", "PGSSLMODE", "PGTARGETSESSIONATTRS", "PGUSER"}) {
    ::unsetenv(name);
  }
}

void raise_file_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

std::filesystem::path this_program() {
  return std::filesystem::read_symlink("/proc/self/exe");
}

namespace {

constexpr std::array handled{SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR2};

void let_signals_come(bool come) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int number : handled) ::sigaddset(&signals, number);
  ::sigprocmask(come ? SIG_UNBLOCK : SIG_BLOCK, &signals, nullptr);
}

void wait_for_signal(std::shared_ptr<boost::asio::signal_set> signals, std::function<void(int)> handler) {
  signals->async_wait([signals, handler](const boost::system::error_code& error, int number) {
    if (error) return;
    handler(number);
    wait_for_signal(signals, handler);
  });
}

}  // namespace

void start_anew(const std::filesystem::path& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program.filename().string());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  let_signals_come(false);
  give_back_core_limit();
  ::execv(program.c_str(), argv.data());
  throw Error("cannot start " + program.string() + " anew: " + std::strerror(errno));
}

void handle_signals(boost::asio::io_context& context, std::function<void(int)> handler) {
  ::signal(SIGPIPE, SIG_IGN);
  auto signals = std::make_shared<boost::asio::signal_set>(context);
  for (const int number : handled) signals->add(number);
  wait_for_signal(std::move(signals), std::move(handler));
  let_signals_come(true);  // those that came while this process became the present program
}

void last_signals(boost::asio::io_context& context) {
  let_signals_come(false);
  context.restart();
  context.poll();
}

}  // namespace pgvigil::os
