#include "common/postgres/tls.hpp"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/model/types.hpp"
#include "common/os/process.hpp"

namespace pgvigil::postgres {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const std::string& why, const std::string& hint = {}) {
  throw UserError(ExitCode::bad_arguments, why, hint);
}

// What openssl prints of a file's public key.
boost::asio::awaitable<std::string> public_key(std::vector<std::string> question) {
  question.insert(question.begin(), "openssl");
  const os::ProcessResult result = co_await os::run(question);
  if (!result.ok()) refuse(question.at(3) + " cannot be used: " + result.output);
  co_return result.output;
}

}  // namespace

boost::asio::awaitable<void> check_certificate(fs::path certificate, fs::path key) {
  struct stat about {};
  if (::stat(key.c_str(), &about) != 0) refuse("there is no " + key.string() + ", or it cannot be read");
  // As PostgreSQL does (be-secure-common.c, check_ssl_key_file_permissions()).
  const bool ours = about.st_uid == ::geteuid();
  if ((!ours && about.st_uid != 0) || (about.st_mode & (ours ? 077u : 027u)) != 0)
    refuse(key.string() + " is open to others", "chmod 0600, and of the user that PostgreSQL runs as");
  const std::vector<std::string> of_certificate{"x509", "-in", certificate.string(), "-noout", "-pubkey"};
  // A key with a passphrase would be asked for it: nobody is there to answer.
  const std::vector<std::string> of_key{"pkey", "-in", key.string(), "-pubout", "-passin", "pass:"};
  const std::string wanted = co_await public_key(of_certificate);
  const std::string found = co_await public_key(of_key);
  if (wanted != found) refuse(key.string() + " is not the key of " + certificate.string());
}

boost::asio::awaitable<void> check_authority(fs::path file) {
  if (!fs::exists(file)) refuse("there is no " + file.string());
  const std::vector<std::string> question{"openssl", "x509", "-in", file.string(), "-noout"};
  const os::ProcessResult result = co_await os::run(question);
  if (!result.ok()) refuse(file.string() + " holds no certificate that PostgreSQL could use: " + result.output);
}

boost::asio::awaitable<void> make_self_signed(fs::path certificate, fs::path key, std::string hostname) {
  unsigned char buffer[sizeof(in6_addr)];
  const bool address =
      ::inet_pton(AF_INET, hostname.c_str(), buffer) == 1 || ::inet_pton(AF_INET6, hostname.c_str(), buffer) == 1;
  const fs::path new_key = key.string() + ".new";
  const fs::path new_certificate = certificate.string() + ".new";
  // The name stands in the extension alone: a common name ends after 64 characters. libpq before 15 looks for an
  // address, too, among the DNS names only.
  const std::vector<std::string> argv{"openssl",
                                      "req",
                                      "-new",
                                      "-x509",
                                      "-nodes",
                                      "-newkey",
                                      "ec",
                                      "-pkeyopt",
                                      "ec_paramgen_curve:prime256v1",
                                      "-days",
                                      "3650",
                                      "-subj",
                                      "/CN=pgvigil",
                                      "-addext",
                                      "subjectAltName=DNS:" + hostname + (address ? ",IP:" + hostname : ""),
                                      "-keyout",
                                      new_key.string(),
                                      "-out",
                                      new_certificate.string()};
  const os::ProcessResult result = co_await os::run(argv);
  if (!result.ok()) {
    throw UserError(ExitCode::internal, "openssl makes no certificate: " + result.output,
                    "is openssl installed? Otherwise give --server-cert and --server-key, or --no-ssl");
  }
  fs::permissions(new_key, fs::perms::owner_read | fs::perms::owner_write);
  fs::rename(new_key, key);
  fs::rename(new_certificate, certificate);
}

boost::asio::awaitable<bool> is_served(fs::path certificate, std::string host, int port) {
  const std::vector<std::string> of_file{"openssl", "x509", "-in", certificate.string()};
  const os::ProcessResult wanted = co_await os::run(of_file);
  if (!wanted.ok()) refuse(certificate.string() + " cannot be used: " + wanted.output);
  const std::string address =
      (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
  const std::vector<std::string> question{"openssl", "s_client", "-starttls", "postgres", "-connect", address};
  os::ProcessOptions options;
  options.timeout = os::Millis{5000};
  const os::ProcessResult shown = co_await os::run(question, options);
  co_return shown.output.find(wanted.output) != std::string::npos;
}

}  // namespace pgvigil::postgres
