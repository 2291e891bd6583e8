// Connection strings: parsing by libpq itself (PQconninfoParse), quoting, and the URIs that applications use.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace pgvigil::pg {

using ConninfoMap = std::map<std::string, std::string>;

// Throws pgvigil::Error with libpq's words, but without `text` itself, when that is neither a URI nor a keyword/value
// string. Only what is given; no defaults.
ConninfoMap parse_conninfo(const std::string& text);
// Of a value that may name several hosts, addresses or ports, as libpq separates them; an empty text is one empty item.
std::vector<std::string> list_items(const std::string& text);
// "host='a' port='5432'", each value quoted and escaped.
std::string to_conninfo(const ConninfoMap& values);
// The same as a postgres:// URI with percent-encoding. Never contains a password. Throws pgvigil::Error when there are
// as many ports as neither one nor hosts.
std::string to_uri(const ConninfoMap& values);
// `text` with the password left out, for logs and messages.
std::string without_password(const std::string& text);

// By this sslmode; verified only by who knows the certificates: without `ca_file` "verify-..." becomes "require".
void set_sslmode(ConninfoMap& values, const std::string& sslmode, const std::string& ca_file);

struct HostPort {
  std::string host;
  int port{5432};
};
// "postgres://h1:p1,h2:p2/db?target_session_attrs=read-write&sslmode=prefer"; IPv6 hosts in brackets.
// `timeouts`: with what makes a client notice a server that does not answer any more. libpq knows these since
// version 12.
std::string application_uri(const std::vector<HostPort>& hosts, const std::string& dbname, const std::string& sslmode,
                            const std::string& root_certificate, bool timeouts);

// 'a''b' and "a""b".
std::string quote_literal(const std::string& text);
std::string quote_identifier(const std::string& text);

}  // namespace pgvigil::pg
