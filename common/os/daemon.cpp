#include "common/os/daemon.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/signal_set.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/model/types.hpp"

namespace pgvigil::os {

void refuse_root() {
  if (::geteuid() == 0) {
    throw UserError(ExitCode::bad_arguments, "this must not run as root: PostgreSQL refuses to",
                    "run it as the user that owns PGDATA, for example by `runuser -u postgres --`");
  }
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

void notify_systemd(const std::string& state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || *path == '\0') return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // an abstract socket
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), size);
  ::close(fd);
}

namespace {

void wait_for_signal(std::shared_ptr<boost::asio::signal_set> signals, std::function<void(int)> handler) {
  signals->async_wait([signals, handler](const boost::system::error_code& error, int number) {
    if (error) return;
    handler(number);
    wait_for_signal(signals, handler);
  });
}

}  // namespace

void handle_signals(boost::asio::io_context& context, std::function<void(int)> handler) {
  ::signal(SIGPIPE, SIG_IGN);
  auto signals = std::make_shared<boost::asio::signal_set>(context, SIGTERM, SIGINT, SIGQUIT);
  signals->add(SIGHUP);
  wait_for_signal(std::move(signals), std::move(handler));
}

}  // namespace pgvigil::os
