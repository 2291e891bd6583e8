// TLS: what is asked for on the command line, certificates, and the connection strings that follow.
#include "common/postgres/tls.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <filesystem>

#include "common/cli/tls_options.hpp"
#include "common/monitor_api/json.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/certificate_watch.hpp"

using namespace pgvigil;
namespace asio = boost::asio;
namespace fs = std::filesystem;

namespace {

config::Config node() {
  config::Config config;
  config.pgdata = "/d";
  config.state_directory = "/s";
  config.monitor_uri = "postgres://m/pgvigil";
  return config;
}

config::Config chosen(config::Config config, const std::vector<std::string>& words, bool by_default = true) {
  cli::choose_tls(config, cli::parse_options(cli::tls_options(true), words), by_default);
  return config;
}

std::string refusal(const config::Config& config, const std::vector<std::string>& words) {
  try {
    chosen(config, words);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

// "" when PostgreSQL could use them.
std::string objection(const fs::path& certificate, const fs::path& key) {
  std::string words;
  const auto ask = [&]() -> asio::awaitable<void> {
    try {
      co_await postgres::check_certificate(certificate, key);
    } catch (const UserError& error) {
      words = error.what();
    }
  };
  asio::io_context context(1);
  asio::co_spawn(context, ask(), asio::detached);
  context.run();
  return words;
}

void make(const fs::path& directory, const std::string& name, const std::string& host) {
  asio::io_context context(1);
  std::exception_ptr failure;
  asio::co_spawn(context, postgres::make_self_signed(directory / (name + ".crt"), directory / (name + ".key"), host),
                 [&](std::exception_ptr error) { failure = error; });
  context.run();
  if (failure) std::rethrow_exception(failure);
}

std::string ending(const std::vector<fs::path>& files) {
  asio::io_context context(1);
  std::string notice;
  asio::co_spawn(context, postgres::ending_certificates(files),
                 [&](std::exception_ptr, std::string text) { notice = std::move(text); });
  context.run();
  return notice;
}

// Of January 2020.
constexpr const char* ended_certificate = R"(-----BEGIN CERTIFICATE-----
MIIBbTCCAROgAwIBAgIULrDp/QgGBtWFZQkSzzn6+xzBRYQwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAeFw0yMDAxMDEwMDAwMDBaFw0yMDAxMzEwMDAwMDBaMAwx
CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQE6zX3xiXeBX1Y
rrI9Nb4ebKsiSwbn24hyIcxHwR8OK+xTQ6E9+tUY/nst5VlafRsWqOwSktgGr17+
P1XjZPuWo1MwUTAdBgNVHQ4EFgQUQpnKqoxk5+ZY/Sus/2YZp3kAOzMwHwYDVR0j
BBgwFoAUQpnKqoxk5+ZY/Sus/2YZp3kAOzMwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNIADBFAiEA+WBnLGlmV9qkZBSDWVGS+aCW/lMwIuWPi0q7Hlk0i4YC
IGPNiszeGiU5KE7rPSjeLZ9eNBdzlbkI2f3vGaQ30yAL
-----END CERTIFICATE-----
)";

}  // namespace

TEST_CASE("TLS: which certificate is meant") {
  const config::Config fresh = chosen(node(), {});
  CHECK(fresh.ssl);
  CHECK(fresh.ssl_cert_file == "/s/server.crt");
  CHECK(fresh.ssl_mode == "require");
  CHECK_FALSE(chosen(node(), {}, false).ssl);  // one that was made before is left as it is
  const config::Config off = chosen(fresh, {"--no-ssl"});
  CHECK_FALSE(off.ssl);
  CHECK(chosen(off, {}) == fresh);  // on again: the certificate it had

  const std::vector<std::string> own{"--server-cert", "/c", "--server-key", "/k"};
  const config::Config given = chosen(fresh, own);
  CHECK(given.ssl_cert_file == "/c");
  CHECK(given.ssl_mode == "require");
  const config::Config verified = chosen(given, {"--ssl-ca-file", "/ca"});
  CHECK(verified.ssl_key_file == "/k");
  CHECK(verified.ssl_mode == "verify-full");
  CHECK(chosen(verified, {"--ssl-mode", "verify-ca"}).ssl_mode == "verify-ca");
  CHECK(chosen(verified, {"--ssl-self-signed"}) == fresh);  // nothing is left of the authority
  CHECK(chosen(verified, own).ssl_ca_file.empty());

  config::Config adopted = node();  // with a certificate that is not ours
  adopted.ssl = true;
  CHECK(chosen(adopted, {"--ssl-ca-file", "/ca"}).ssl_cert_file.empty());
}

TEST_CASE("TLS: what is refused") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--no-ssl", "--ssl-self-signed"},
                                                {"--server-cert", "/c"},
                                                {"--server-key", "/k"},
                                                {"--ssl-self-signed", "--server-cert", "/c", "--server-key", "/k"},
                                                {"--no-ssl", "--ssl-mode", "require"}})
    CHECK(refusal(node(), words).find("not clear which certificate") != std::string::npos);
  CHECK(refusal(node(), {"--ssl-mode", "verify-full"}).find("could be verified") != std::string::npos);
  CHECK(refusal(node(), {"--ssl-mode", "disable"}).find("must be one of prefer, require") != std::string::npos);
  config::Config monitor = node();
  monitor.ssl = true;
  CHECK_NOTHROW(config::parse(config::to_toml(monitor), "/f"));
  monitor.role = config::Role::monitor;
  CHECK_THROWS_AS(config::parse(config::to_toml(monitor), "/f"), UserError);  // there is nobody else's certificate
  monitor.ssl_cert_file = monitor.ssl_key_file = "/c";
  CHECK_NOTHROW(config::parse(config::to_toml(monitor), "/f"));
  monitor.ssl_mode = "verify-ca";
  CHECK_THROWS_AS(config::parse(config::to_toml(monitor), "/f"), UserError);
}

TEST_CASE("TLS: certificates that PostgreSQL can use") {
  char name[] = "/tmp/pgvigil-unit.XXXXXX";
  const fs::path directory = ::mkdtemp(name);
  make(directory, "one", "a.example");
  make(directory, "two", "2001:db8::1");
  const auto file = [&](const char* file_name) { return directory / file_name; };
  CHECK(fs::status(file("one.key")).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(objection(file("one.crt"), file("one.key")).empty());
  CHECK(objection(file("two.crt"), file("two.key")).empty());
  CHECK(objection(file("one.crt"), file("two.key")).find("is not the key of") != std::string::npos);
  CHECK(objection(file("three.crt"), file("one.key")).find("three.crt cannot be used") != std::string::npos);
  CHECK(objection(file("one.crt"), file("three.key")).find("there is no") != std::string::npos);
  CHECK(objection(file("one.key"), file("one.key")).find("cannot be used") != std::string::npos);
  fs::permissions(file("one.key"), fs::perms::group_read, fs::perm_options::add);
  CHECK(objection(file("one.crt"), file("one.key")).find("open to others") != std::string::npos);
  fs::remove_all(directory);
}

TEST_CASE("TLS: certificates that end") {
  char name[] = "/tmp/pgvigil-unit.XXXXXX";
  const fs::path directory = ::mkdtemp(name);
  make(directory, "lasting", "a.example");
  const fs::path lasting = directory / "lasting.crt", old = directory / "old.crt", several = directory / "several.crt";
  os::write_file_atomic(old, ended_certificate, 0644);
  os::write_file_atomic(several, std::string(ended_certificate) + ended_certificate, 0644);
  CHECK(ending({lasting, directory / "none.crt", directory / "lasting.key"}).empty());
  CHECK(ending({old, lasting}) == "the certificate " + old.string() + " has ended on Jan 31 00:00:00 2020 GMT");
  CHECK(ending({several}).find("has ended on") != std::string::npos);
  CHECK(ending({lasting, several}).empty());  // of these nobody knows which one counts
  CHECK(ending({old, old}).find("; the certificate") != std::string::npos);
  fs::remove_all(directory);

  config::Config config = chosen(node(), {});
  CHECK(postgres::certificates_of(config) == std::vector<fs::path>{"/s/server.crt"});
  config.ssl_ca_file = "/ca";
  CHECK(postgres::certificates_of(config) == std::vector<fs::path>{"/s/server.crt", "/ca"});
  config.ssl_ca_file = config.ssl_cert_file;
  CHECK(postgres::certificates_of(config).size() == 1);
  config.ssl = false;
  CHECK(postgres::certificates_of(config).empty());
}

TEST_CASE("TLS: how nodes are reached") {
  CHECK(pg::application_uri({{"a", 1}}, "d", "verify-full", "/ca file", false) ==
        "postgres://a:1/d?target_session_attrs=read-write&sslmode=verify-full&sslrootcert=%2Fca%20file");
  Peer peer;
  peer.sslmode = "verify-ca";
  CHECK(monitor_api::peers_from(monitor_api::peers_array({peer})) == std::vector<Peer>{peer});
  boost::json::array old = monitor_api::peers_array({peer});
  old[0].as_object().erase("sslmode");
  CHECK(monitor_api::peers_from(old).front().sslmode == "prefer");
}
