// Says in time that a certificate ends: nobody renews what nobody hears of.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "common/config/config.hpp"
#include "common/os/event.hpp"

namespace pgvigil::postgres {

// Of certificates that end within 14 days or have ended; "" when there are none. By the openssl program; a file that it
// cannot read is not ours to complain of here (check_certificate()), and of several certificates in an authority's file
// nobody knows which one counts.
boost::asio::awaitable<std::string> ending_certificates(std::vector<std::filesystem::path> files);

// Those that a configuration names.
std::vector<std::filesystem::path> certificates_of(const config::Config& config);

// Looks every hour at the certificates that a configuration names, logs a warning every day.
class CertificateWatch {
 public:
  explicit CertificateWatch(const boost::asio::any_io_executor& executor) : look_now_(executor) {}
  // At these from now on, also when the same names hold other certificates.
  void look_at(const config::Config& config);
  boost::asio::awaitable<void> run();  // without end
  const std::string& notice() const { return notice_; }

 private:
  std::vector<std::filesystem::path> files_;
  std::string notice_;
  os::Event look_now_;
};

}  // namespace pgvigil::postgres
