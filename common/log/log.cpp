#include "common/log/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include "common/model/types.hpp"

namespace pgvigil::log {

namespace {

// One JSON object a line; the message is escaped here because spdlog's patterns do not.
class JsonSink : public spdlog::sinks::sink {
 public:
  explicit JsonSink(std::string program) : program_(std::move(program)) {}
  void log(const spdlog::details::log_msg& message) override {
    const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(message.time.time_since_epoch()).count();
    const auto level = spdlog::level::to_string_view(message.level);
    const std::string line = fmt::format(R"({{"time_us":{},"level":"{}","program":"{}","pid":{},"message":"{}"}})"
                                         "\n",
                                         micros, std::string_view(level.data(), level.size()), program_, ::getpid(),
                                         escaped({message.payload.data(), message.payload.size()}));
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
  void flush() override { std::fflush(stderr); }
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

 private:
  static std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
      if (c == '"' || c == '\\') {
        result += '\\';
        result += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      } else {
        result += c;
      }
    }
    return result;
  }
  std::string program_;
};

}  // namespace

void setup(const std::string& program, const std::string& level, const std::string& format) {
  std::shared_ptr<spdlog::logger> logger;
  if (format == "json") {
    logger = std::make_shared<spdlog::logger>(program, std::make_shared<JsonSink>(program));
  } else if (format == "text") {
    logger = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %P %^%l%$ %v");
  } else {
    throw UserError(ExitCode::bad_config, "log.format is \"" + format + "\"", "use text or json");
  }
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw UserError(ExitCode::bad_config, "log.level is \"" + level + "\"", "use trace, debug, info, warn or error");
  }
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace pgvigil::log
