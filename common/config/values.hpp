// What some values may be that PostgreSQL or its programs would refuse only later, where it hurts.
#pragma once
#include <string>

namespace pgvigil::config {

// An IPv4 or IPv6 address in full, or a name. Not what pg_hba.conf takes for a keyword (all, samehost, samenet,
// .domain) or getaddrinfo() for a number (10.0.5, 0x7f000001): one such line, and PostgreSQL does not start any more.
bool is_host(const std::string& text);

// For pg_basebackup --max-rate: kilobytes a second, or with k or M behind the number; 32k to 1024M.
bool is_backup_rate(const std::string& text);

}  // namespace pgvigil::config
