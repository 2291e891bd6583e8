// Certificates of a local PostgreSQL.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <string>

namespace pgvigil::postgres {

// A certificate for `hostname`, signed by its own key (mode 0600): it hides what is sent, and who has a copy of it can
// verify it. By the openssl program. Files that are there are replaced.
boost::asio::awaitable<void> make_self_signed(std::filesystem::path certificate, std::filesystem::path key,
                                              std::string hostname);
// Throws UserError(bad_arguments) where PostgreSQL would not start: a file that is missing or open to others, a key
// that is not the certificate's.
boost::asio::awaitable<void> check_certificate(std::filesystem::path certificate, std::filesystem::path key);
// The same of a file with the certificates of authorities.
boost::asio::awaitable<void> check_authority(std::filesystem::path file);
// The server there shows this certificate to who asks for TLS. False also when it does not answer within some seconds.
boost::asio::awaitable<bool> is_served(std::filesystem::path certificate, std::string host, int port);

}  // namespace pgvigil::postgres
