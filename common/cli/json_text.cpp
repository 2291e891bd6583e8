#include "common/cli/json_text.hpp"

#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace pgvigil::cli {

namespace json = boost::json;

namespace {

void write(std::string& out, const json::value& value, std::size_t depth);

std::string line_start(std::size_t depth) {
  return "\n" + std::string(depth * 4, ' ');
}

void write_object(std::string& out, const json::object& object, std::size_t depth) {
  out += '{';
  bool first = true;
  for (const auto& member : object) {
    if (!first) out += ',';
    first = false;
    out += line_start(depth + 1) + json::serialize(json::string(member.key())) + ": ";
    write(out, member.value(), depth + 1);
  }
  out += line_start(depth) + "}";
}

void write_array(std::string& out, const json::array& array, std::size_t depth) {
  out += '[';
  bool first = true;
  for (const json::value& element : array) {
    if (!first) out += ',';
    first = false;
    out += line_start(depth + 1);
    write(out, element, depth + 1);
  }
  out += line_start(depth) + "]";
}

void write(std::string& out, const json::value& value, std::size_t depth) {
  if (value.is_object() && !value.get_object().empty()) {
    write_object(out, value.get_object(), depth);
  } else if (value.is_array() && !value.get_array().empty()) {
    write_array(out, value.get_array(), depth);
  } else if (value.is_double()) {
    char text[64];  // the shortest form that is read back as the same number; Boost's own always has an exponent
    out.append(text, std::to_chars(text, text + sizeof text, value.get_double()).ptr);
  } else {
    out += json::serialize(value);
  }
}

}  // namespace

std::string pretty(const json::value& value) {
  std::string text;
  write(text, value, 0);
  return text + "\n";
}

std::string cell(const json::value& row, std::string_view key) {
  const json::object* object = row.if_object();
  const json::value* found = object == nullptr ? nullptr : object->if_contains(key);
  if (found == nullptr || found->is_null()) return {};
  if (found->is_string()) return json::value_to<std::string>(*found);
  return json::serialize(*found);
}

std::string local_time(const std::string& iso_time) {
  std::tm parts{};
  const char* rest = ::strptime(iso_time.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) return iso_time;
  if (*rest == '.') rest += 1 + std::strspn(rest + 1, "0123456789");
  int hours = 0;
  int minutes = 0;
  if (std::sscanf(rest, "%3d:%2d", &hours, &minutes) < 1) return iso_time;
  const int offset = hours * 3600 + (*rest == '-' ? -minutes : minutes) * 60;
  const std::time_t moment = ::timegm(&parts) - offset;
  std::tm local{};
  ::localtime_r(&moment, &local);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local)};
}

}  // namespace pgvigil::cli
