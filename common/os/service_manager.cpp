#include "common/os/service_manager.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "common/os/event.hpp"

namespace pgvigil::os {

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

ServiceManager::ServiceManager() : address_(variable("NOTIFY_SOCKET")) {
  if (!address_.empty() && address_[0] == '@') address_[0] = '\0';  // an abstract socket
  const std::string owner = variable("WATCHDOG_PID");
  // The variables may have come down from a service that has nothing to do with us (sd_watchdog_enabled(3)).
  if (!owner.empty() && owner != std::to_string(::getpid())) return;
  watchdog_ = std::chrono::microseconds{std::strtoll(variable("WATCHDOG_USEC").c_str(), nullptr, 10)};
}

void ServiceManager::send(const std::string& message) const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (address_.empty() || address_.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, address_.data(), address_.size());
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  // Not waited for: a service manager that does not read must not hold up who keeps PostgreSQL.
  ::sendto(fd, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&address),
           size);
  ::close(fd);
}

void ServiceManager::ready() {
  if (!ready_) send("READY=1");
  ready_ = true;
}

void ServiceManager::stopping(std::chrono::seconds at_most) {
  send("STOPPING=1\nEXTEND_TIMEOUT_USEC=" + std::to_string(std::chrono::microseconds(at_most).count()));
}

boost::asio::awaitable<void> ServiceManager::attend(std::function<std::string()> describe) {
  using std::chrono::milliseconds;
  milliseconds pause{1000};
  if (watchdog_.count() > 0)
    pause = std::clamp(std::chrono::duration_cast<milliseconds>(watchdog_ / 3), milliseconds{1}, pause);
  std::string last;
  for (;;) {
    const std::string now = describe();
    if (now != last) send("STATUS=" + now);
    last = now;
    if (watchdog_.count() > 0) send("WATCHDOG=1");
    co_await sleep_for(pause);
  }
}

}  // namespace pgvigil::os
