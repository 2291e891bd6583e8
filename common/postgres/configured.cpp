#include "common/postgres/configured.hpp"

#include <vector>

#include "common/model/types.hpp"
#include "common/os/process.hpp"

namespace pgvigil::postgres {

boost::asio::awaitable<std::string> configured(std::filesystem::path bindir, std::filesystem::path directory,
                                               std::filesystem::path config_file, std::string name) {
  const std::vector<std::string> argv{(bindir / "postgres").string(),        "-D", directory.string(), "-c",
                                      "config_file=" + config_file.string(), "-C", std::move(name)};
  const os::ProcessResult result = co_await os::run(argv);
  std::string text = result.output;
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (!result.ok()) throw Error(text);
  co_return text.substr(text.find_last_of('\n') + 1);  // warnings come before it
}

}  // namespace pgvigil::postgres
