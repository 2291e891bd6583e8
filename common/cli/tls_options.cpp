#include "common/cli/tls_options.hpp"

#include "common/postgres/tls.hpp"

namespace pgvigil::cli {

namespace fs = std::filesystem;

std::vector<Option> tls_options(bool at_create) {
  std::vector<Option> options{
      {"ssl-self-signed", "", "TLS with a certificate that is made here"},
      {"server-cert", "FILE", "certificate of its PostgreSQL, with --server-key"},
      {"server-key", "FILE", "the key of it, mode 0600"},
      {"ssl-ca-file", "FILE", "certificates by which it knows the others, and they know it (at the same path)"},
      {"ssl-mode", "MODE", "sslmode by which it is reached (require; verify-full with --ssl-ca-file)"},
      {"client-certificates", "WHICH",
       "shown: it shows its certificate to the monitor and the other nodes; required: and asks them for theirs, of the "
       "authority in --ssl-ca-file (none)"}};
  if (!at_create) return options;
  options.front().help += " (the default)";
  options.push_back({"no-ssl", "", "no TLS"});
  return options;
}

bool asks_for_tls(const Args& args) {
  return args.has("ssl-self-signed") || args.has("server-cert") || args.has("server-key") || args.has("ssl-ca-file") ||
         args.has("ssl-mode") || args.has("client-certificates");
}

std::vector<fs::path> own_certificate(const config::Config& config) {
  return {fs::path(config.state_directory) / "server.crt", fs::path(config.state_directory) / "server.key"};
}

void choose_tls(config::Config& config, const Args& args, bool by_default) {
  const bool own_files = args.has("server-cert") || args.has("server-key");
  if ((asks_for_tls(args) && args.has("no-ssl")) || (own_files && args.has("ssl-self-signed")) ||
      args.has("server-cert") != args.has("server-key")) {
    throw UserError(ExitCode::bad_arguments, "it is not clear which certificate is meant",
                    "give --ssl-self-signed, or --server-cert and --server-key, or --no-ssl");
  }
  if (args.has("no-ssl")) config.ssl = false;
  if (args.has("no-ssl") || (!asks_for_tls(args) && !by_default)) return;
  const auto absolute = [&](const char* option) { return fs::absolute(args.get(option)).lexically_normal().string(); };
  const bool self_signed = args.has("ssl-self-signed") || (config.ssl_cert_file.empty() && !config.ssl);
  if (own_files) {
    config.ssl_cert_file = absolute("server-cert");
    config.ssl_key_file = absolute("server-key");
  } else if (self_signed) {
    config.ssl_cert_file = own_certificate(config)[0].string();
    config.ssl_key_file = own_certificate(config)[1].string();
  }
  // What belonged to the certificate before does not belong to another one.
  if (own_files || self_signed) {
    config.ssl_ca_file.clear();
    config.ssl_client_certificates = "none";
  }
  if (args.has("ssl-ca-file")) config.ssl_ca_file = absolute("ssl-ca-file");
  const std::string mode = args.get("ssl-mode", config.ssl_ca_file.empty() ? "require" : "verify-full");
  if (mode.starts_with("verify-") && config.ssl_ca_file.empty()) {
    throw UserError(ExitCode::bad_arguments, "nothing is said by which a certificate could be verified",
                    "give --ssl-ca-file");
  }
  const std::string shown = args.get("client-certificates", config.ssl_client_certificates);
  if (shown != "none" && (config.ssl_ca_file.empty() || config.ssl_cert_file.empty())) {
    throw UserError(ExitCode::bad_arguments, "only a certificate of an authority that all know can be asked for",
                    "give --server-cert, --server-key and --ssl-ca-file");
  }
  config.ssl = true;
  config::set(config, "ssl.sslmode", mode);
  config::set(config, "ssl.client_certificates", shown);
}

boost::asio::awaitable<void> provide_certificate(config::Config config, bool anew) {
  if (!config.ssl || config.ssl_cert_file.empty()) co_return;
  // With a file that it cannot read, PostgreSQL would not start any more. First, for a certificate made here is
  // written.
  if (!config.ssl_ca_file.empty() && config.ssl_ca_file != config.ssl_cert_file)
    co_await postgres::check_authority(config.ssl_ca_file);
  const bool own = config.ssl_key_file == own_certificate(config)[1];
  if (own && (anew || !fs::exists(config.ssl_key_file) || !fs::exists(config.ssl_cert_file)))
    co_await postgres::make_self_signed(config.ssl_cert_file, config.ssl_key_file, config.hostname);
  co_await postgres::check_certificate(config.ssl_cert_file, config.ssl_key_file);
}

}  // namespace pgvigil::cli
