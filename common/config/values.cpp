#include "common/config/values.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace pgvigil::config {

namespace {

bool is_address(const std::string& text) {
  unsigned char buffer[sizeof(in6_addr)];
  return ::inet_pton(AF_INET, text.c_str(), buffer) == 1 || ::inet_pton(AF_INET6, text.c_str(), buffer) == 1;
}

// As inet_aton() reads a part of an address.
bool is_number(const std::string& label) {
  const bool hexadecimal = label.starts_with("0x") || label.starts_with("0X");
  return std::all_of(label.begin() + (hexadecimal ? 2 : 0), label.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (hexadecimal && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
  });
}

}  // namespace

bool is_host(const std::string& text) {
  if (is_address(text)) return true;
  const bool plain = !text.empty() && text.size() <= 255 && std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) > ' ' && c != 127 && std::string("'\",/\\#:%").find(c) == std::string::npos;
  });
  if (!plain || text.front() == '.' || text == "all" || text == "samehost" || text == "samenet") return false;
  const std::string name = text.substr(0, text.back() == '.' ? text.size() - 1 : text.size());
  const auto dot = name.rfind('.');
  return !is_number(dot == std::string::npos ? name : name.substr(dot + 1));
}

bool is_backup_rate(const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc()) return false;
  const std::string unit(stop, end);
  if (!unit.empty() && unit != "k" && unit != "M") return false;
  const double kilobytes = unit == "M" ? number * 1024 : number;
  return kilobytes >= 32 && kilobytes <= 1024 * 1024 && std::floor(kilobytes) == kilobytes;
}

}  // namespace pgvigil::config
