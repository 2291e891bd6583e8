// The choice of TLS for a PostgreSQL of ours: at create, and with `enable ssl`.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <vector>

#include "common/cli/cli.hpp"
#include "common/config/config.hpp"

namespace pgvigil::cli {

// --ssl-self-signed, --server-cert, --server-key, --ssl-ca-file, --ssl-mode, --client-certificates; and --no-ssl
// at create.
std::vector<Option> tls_options(bool at_create);
// Some certificate is asked for.
bool asks_for_tls(const Args& args);
// Puts what is asked for into [ssl] of `config`. `by_default`: self-signed when nothing is said. Throws
// UserError(bad_arguments).
void choose_tls(config::Config& config, const Args& args, bool by_default);
// Makes the self-signed certificate when it is missing, or with `anew`; refuses files that PostgreSQL could not start
// with.
boost::asio::awaitable<void> provide_certificate(config::Config config, bool anew);
// Of the certificate that is made here: its two files.
std::vector<std::filesystem::path> own_certificate(const config::Config& config);

}  // namespace pgvigil::cli
