#include "common/postgres/tls.hpp"

#include <arpa/inet.h>

#include "common/model/types.hpp"
#include "common/os/process.hpp"

namespace pgvigil::postgres {

namespace fs = std::filesystem;

boost::asio::awaitable<void> make_self_signed(fs::path certificate, fs::path key, std::string hostname) {
  unsigned char buffer[sizeof(in6_addr)];
  const bool address =
      ::inet_pton(AF_INET, hostname.c_str(), buffer) == 1 || ::inet_pton(AF_INET6, hostname.c_str(), buffer) == 1;
  const fs::path new_key = key.string() + ".new";
  const fs::path new_certificate = certificate.string() + ".new";
  // The name stands in the extension alone: a common name ends after 64 characters.
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
                                      std::string("subjectAltName=") + (address ? "IP:" : "DNS:") + hostname,
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

}  // namespace pgvigil::postgres
