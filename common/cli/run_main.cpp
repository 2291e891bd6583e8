#include <clocale>
#include <csignal>
#include <iostream>

#include "common/cli/cli.hpp"
#include "common/pg/connection.hpp"

namespace pgvigil::cli {

namespace {

int fail(const std::string& program, ExitCode code, const std::string& what, const std::string& hint = {}) {
  std::cout.flush();
  std::cerr << program << ": error: " << what << '\n';
  if (!hint.empty()) std::cerr << "hint: " << hint << '\n';
  std::cerr.flush();
  return static_cast<int>(code);
}

}  // namespace

int run_main(const std::string& program, int argc, char** argv,
             const std::function<int(const std::vector<std::string>&)>& body) noexcept {
  try {
    std::setlocale(LC_CTYPE, "");
    std::signal(SIGPIPE, SIG_IGN);  // a closed pipe or socket is an error of the write, not the end of the process
    const int code = body(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
    if (!std::cout.flush()) throw Error("cannot write to standard output");
    return code;
  } catch (const UserError& error) {
    return fail(program, error.code, error.what(), error.hint);
  } catch (const pg::ConnectionError& error) {
    return fail(program, ExitCode::monitor, error.what());
  } catch (const pg::SqlError& error) {
    return fail(program, ExitCode::sql, error.what(), error.hint);
  } catch (const std::exception& error) {
    return fail(program, ExitCode::internal, error.what());
  } catch (...) {
    return fail(program, ExitCode::internal, "an unknown exception");
  }
}

}  // namespace pgvigil::cli
