// What systemd is told (sd_notify(3)), without libsystemd: one datagram for each message, to $NOTIFY_SOCKET. Without
// that variable nothing is ever sent.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <string>

namespace pgvigil::os {

class ServiceManager {
 public:
  ServiceManager();  // reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; child processes do not inherit them

  void ready();  // once, further calls do nothing
  // The stop takes `at_most`, however short the unit's TimeoutStopSec= is.
  void stopping(std::chrono::seconds at_most);
  // Until cancelled: STATUS= when describe() says something new (asked each second), and WATCHDOG=1 three times within
  // the limit. The loop that runs this is what the watchdog watches: when it hangs, nothing is sent.
  boost::asio::awaitable<void> attend(std::function<std::string()> describe);

 private:
  void send(const std::string& message) const;

  std::string address_;  // as sun_path wants it; empty: nobody listens
  std::chrono::microseconds watchdog_{0};
  bool ready_{false};
};

}  // namespace pgvigil::os
