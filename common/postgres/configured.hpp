// What the configuration files say, as the server itself reads them: with all that is included, whether it runs or not.
#pragma once
#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <string>

namespace pgvigil::postgres {

// `directory`: given to the server as -D. Throws pgvigil::Error with what it says when it would not start with them.
boost::asio::awaitable<std::string> configured(std::filesystem::path bindir, std::filesystem::path directory,
                                               std::filesystem::path config_file, std::string name);

}  // namespace pgvigil::postgres
