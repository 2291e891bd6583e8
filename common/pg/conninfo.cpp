#include "common/pg/conninfo.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>

#include "common/model/types.hpp"

namespace pgvigil::pg {

namespace {

std::string percent_encoded(const std::string& text) {
  static const char digits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) {
      encoded += c;
    } else {
      encoded += {'%', digits[byte >> 4], digits[byte & 15]};
    }
  }
  return encoded;
}

// An address may hold ':' only in brackets; a directory (Unix socket) is percent-encoded.
std::string uri_host(const std::string& host) {
  return host.find(':') != std::string::npos ? "[" + host + "]" : percent_encoded(host);
}

// Each host with its port, as libpq pairs them: one port is that of all hosts.
std::string uri_hosts(const std::string& host_list, const std::string& port_list) {
  std::vector<std::string> hosts = list_items(host_list);
  std::vector<std::string> ports = list_items(port_list);
  if (ports.size() == 1) ports.resize(hosts.size(), ports.front());
  if (host_list.empty()) hosts.resize(ports.size());
  if (hosts.size() != ports.size())
    throw Error("there are " + std::to_string(hosts.size()) + " hosts, and " + std::to_string(ports.size()) + " ports");
  std::string text;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    text += (i == 0 ? "" : ",") + uri_host(hosts[i]) + (ports[i].empty() ? "" : ":" + ports[i]);
  }
  return text;
}

// libpq shows the text that it could not read, and with it the password in there. A keyword alone is none.
std::string without_quotation(const std::string& why) {
  const auto begin = why.rfind(": \"");
  if (begin == std::string::npos) return why;
  const bool keyword = std::all_of(why.begin() + static_cast<std::ptrdiff_t>(begin) + 3, why.end() - 1,
                                   [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
  return keyword ? why : why.substr(0, begin);
}

}  // namespace

std::vector<std::string> list_items(const std::string& text) {
  std::vector<std::string> items;
  for (std::size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find(',', begin);
    items.push_back(text.substr(begin, end - begin));
  }
  return items;
}

ConninfoMap parse_conninfo(const std::string& text) {
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(PQconninfoParse(text.c_str(), &message),
                                                                             PQconninfoFree);
  if (!options) {
    std::string why = message == nullptr ? "out of memory" : message;
    PQfreemem(message);
    while (!why.empty() && why.back() == '\n') why.pop_back();
    throw Error("not a connection string: " + without_quotation(why));
  }
  ConninfoMap values;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) values.emplace(option->keyword, option->val);
  }
  return values;
}

std::string to_conninfo(const ConninfoMap& values) {
  std::string text;
  for (const auto& [keyword, value] : values) {
    if (!text.empty()) text += ' ';
    text += keyword + "='";
    for (const char c : value) {
      if (c == '\'' || c == '\\') text += '\\';
      text += c;
    }
    text += '\'';
  }
  return text;
}

std::string to_uri(const ConninfoMap& values) {
  const auto get = [&](const char* key) {
    const auto found = values.find(key);
    return found == values.end() ? std::string() : found->second;
  };
  std::string uri = "postgres://";
  if (!get("user").empty()) uri += percent_encoded(get("user")) + "@";
  uri += uri_hosts(get("host"), get("port")) + "/" + percent_encoded(get("dbname"));
  char separator = '?';
  for (const auto& [keyword, value] : values) {
    const bool placed =
        keyword == "user" || keyword == "host" || keyword == "port" || keyword == "dbname" || keyword == "password";
    if (placed) continue;
    uri += separator + percent_encoded(keyword) + "=" + percent_encoded(value);
    separator = '&';
  }
  return uri;
}

std::string without_password(const std::string& text) {
  ConninfoMap values = parse_conninfo(text);
  values.erase("password");
  return text.find("://") != std::string::npos ? to_uri(values) : to_conninfo(values);
}

void set_sslmode(ConninfoMap& values, const std::string& sslmode, const std::string& ca_file) {
  const bool verifies = sslmode.starts_with("verify-");
  values["sslmode"] = verifies && ca_file.empty() ? "require" : sslmode;
  if (verifies && !ca_file.empty()) values["sslrootcert"] = ca_file;
}

std::string application_uri(const std::vector<HostPort>& hosts, const std::string& dbname, const std::string& sslmode,
                            const std::string& root_certificate, bool timeouts) {
  std::string list;
  for (const HostPort& host : hosts) {
    if (!list.empty()) list += ',';
    list += uri_host(host.host) + ":" + std::to_string(host.port);
  }
  return "postgres://" + list + "/" + percent_encoded(dbname) +
         "?target_session_attrs=read-write&sslmode=" + percent_encoded(sslmode) +
         (root_certificate.empty() ? "" : "&sslrootcert=" + percent_encoded(root_certificate)) +
         // Who waits for an answer has nothing to send: the keepalives find out. Linux ends the connection when nothing
         // came for tcp_user_timeout (ms): three keepalives are lost by then, no single packet's loss will do.
         (timeouts ? "&connect_timeout=2&tcp_user_timeout=5000&keepalives_idle=2&keepalives_interval=1"
                     "&keepalives_count=3"
                   : "");
}

std::string quote_literal(const std::string& text) {
  // E'' only where a backslash needs it: standard_conforming_strings may be off for the session.
  const bool escape = text.find('\\') != std::string::npos;
  std::string quoted = escape ? " E'" : "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') quoted += c;
    quoted += c;
  }
  return quoted + "'";
}

std::string quote_identifier(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += c;
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace pgvigil::pg
