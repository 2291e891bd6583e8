#include "common/postgres/certificate_watch.hpp"

#include "common/log/log.hpp"
#include "common/os/file.hpp"
#include "common/os/process.hpp"

namespace pgvigil::postgres {

namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

constexpr std::chrono::seconds notice_period = std::chrono::days{14};
constexpr auto look_every = std::chrono::hours{1};
constexpr auto say_every = std::chrono::hours{24};

bool holds_several(const fs::path& file) {
  constexpr std::string_view begin = "-----BEGIN CERTIFICATE-----";
  const std::string text = os::read_file(file).value_or("");
  return text.find(begin) != text.rfind(begin);
}

// What openssl says of the certificate's end, when that comes within `period`; nullopt when not, or when it cannot
// tell.
asio::awaitable<std::optional<std::string>> end_within(fs::path file, std::chrono::seconds period) {
  const std::vector<std::string> argv{"openssl", "x509",     "-in",       file.string(),
                                      "-noout",  "-enddate", "-checkend", std::to_string(period.count())};
  const os::ProcessResult result = co_await os::run(argv);
  constexpr std::string_view key = "notAfter=";
  const std::size_t at = result.output.find(key);
  if (result.ok() || at == std::string::npos) co_return std::nullopt;
  const std::size_t from = at + key.size();
  co_return result.output.substr(from, result.output.find('\n', from) - from);
}

}  // namespace

asio::awaitable<std::string> ending_certificates(std::vector<fs::path> files) {
  std::string text;
  for (const fs::path& file : files) {
    // The first of a server's file is its own.
    if (&file != &files.front() && holds_several(file)) continue;
    const auto soon = co_await end_within(file, notice_period);
    if (!soon) continue;
    const bool ended = (co_await end_within(file, std::chrono::seconds{0})).has_value();
    text += (text.empty() ? "" : "; ") + ("the certificate " + file.string()) +
            (ended ? " has ended on " : " ends on ") + *soon;
  }
  co_return text;
}

std::vector<fs::path> certificates_of(const config::Config& config) {
  std::vector<fs::path> files;
  if (config.ssl && !config.ssl_cert_file.empty()) files.emplace_back(config.ssl_cert_file);
  if (config.ssl && !config.ssl_ca_file.empty() && config.ssl_ca_file != config.ssl_cert_file)
    files.emplace_back(config.ssl_ca_file);
  return files;
}

void CertificateWatch::look_at(const config::Config& config) {
  files_ = certificates_of(config);
  look_now_.set();
}

asio::awaitable<void> CertificateWatch::run() {
  std::chrono::steady_clock::time_point said{};
  for (;;) {
    std::string notice;
    try {
      notice = co_await ending_certificates(files_);
    } catch (const std::exception& error) {
      log::debug("cannot look at the certificates: {}", error.what());
    }
    const auto now = std::chrono::steady_clock::now();
    if (!notice.empty() && (notice != notice_ || now - said >= say_every)) {
      log::warn("{}: put another one there, then `pgvigil reload`; or `pgvigil enable ssl` with another one", notice);
      said = now;
    }
    notice_ = notice;
    co_await look_now_.wait(look_every);
  }
}

}  // namespace pgvigil::postgres
