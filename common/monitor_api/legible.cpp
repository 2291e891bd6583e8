#include "common/monitor_api/legible.hpp"

#include <algorithm>

namespace pgvigil::monitor_api {

namespace {

unsigned byte_at(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

// By the first byte; 0: no character begins with it.
std::size_t length_by(unsigned first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

// Forms that are longer than they need be, halves of surrogate pairs and what lies behind the last code point are told
// by the second byte (RFC 3629, section 4; PostgreSQL's pg_utf8_islegal()).
bool is_second(unsigned first, unsigned second) {
  switch (first) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return second >= 0x80 && second <= 0xBF;
  }
}

// Of the character that `text`, which is not empty, begins with, in bytes; 0: with none.
std::size_t character(std::string_view text) {
  const unsigned first = byte_at(text, 0);
  const std::size_t length = length_by(first);
  if (length > text.size()) return 0;
  if (length > 1 && !is_second(first, byte_at(text, 1))) return 0;
  for (std::size_t at = 2; at < length; ++at) {
    if ((byte_at(text, at) & 0xC0u) != 0x80) return 0;
  }
  return length;
}

bool is_control(unsigned byte) {
  return (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
}

}  // namespace

std::string legible(std::string_view text, std::size_t limit) {
  std::string result;
  for (std::size_t count = 0; count < limit && !text.empty(); ++count) {
    const std::size_t length = character(text);
    if (length == 0 || is_control(byte_at(text, 0))) {
      result += '?';
    } else {
      result += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return result;
}

}  // namespace pgvigil::monitor_api
