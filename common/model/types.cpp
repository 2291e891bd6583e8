#include "common/model/types.hpp"

#include <charconv>
#include <cstdio>

namespace pgvigil {

std::string to_string(Lsn lsn) {
  char text[32];
  const int length = std::snprintf(text, sizeof text, "%X/%X", static_cast<unsigned>(lsn.value >> 32),
                                   static_cast<unsigned>(lsn.value & 0xFFFFFFFFu));
  return {text, static_cast<std::size_t>(length)};
}

std::optional<Lsn> parse_lsn(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto half = [](std::string_view digits) -> std::optional<std::uint32_t> {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc{} || digits.empty() || end != digits.data() + digits.size()) return std::nullopt;
    return value;
  };
  const auto high = half(text.substr(0, slash));
  const auto low = half(text.substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return Lsn{(static_cast<std::uint64_t>(*high) << 32) | *low};
}

}  // namespace pgvigil
