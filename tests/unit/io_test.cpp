// Coroutines over processes, sockets and timers: results, limits, cancellation.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "common/os/event.hpp"
#include "common/os/process.hpp"
#include "common/os/race.hpp"
#include "common/pg/connection.hpp"

using namespace pgvigil;
namespace asio = boost::asio;
using std::chrono::milliseconds;

namespace {

void run(std::function<asio::awaitable<void>()> body) {
  asio::io_context context(1);
  std::exception_ptr failure;
  asio::co_spawn(context, body(), [&](std::exception_ptr error) { failure = error; });
  context.run();
  if (failure) std::rethrow_exception(failure);
}

int listening_port(int& fd, bool listen) {
  fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  if (listen) ::listen(fd, 5);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

pg::ConnectionError::Kind connect_kind(int port) {
  pg::ConnectionError::Kind kind = pg::ConnectionError::Kind::other;
  run([&]() -> asio::awaitable<void> {
    const std::string conninfo =
        "host=127.0.0.1 port=" + std::to_string(port) + " dbname=x user=y password=hush sslmode=disable";
    try {
      pg::Connection connection = co_await pg::Connection::connect(conninfo, milliseconds{300});
    } catch (const pg::ConnectionError& error) {
      kind = error.kind;
      CHECK(std::string(error.what()).find("hush") == std::string::npos);
    }
  });
  return kind;
}

}  // namespace

TEST_CASE("a refused port, and one that never answers") {
  int fd = -1;
  const int silent = listening_port(fd, true);
  CHECK(connect_kind(silent) == pg::ConnectionError::Kind::timeout);
  ::close(fd);
  const int closed = listening_port(fd, false);
  CHECK(connect_kind(closed) == pg::ConnectionError::Kind::refused);
  ::close(fd);
}

TEST_CASE("a server that is slow with each answer, and no longer silent than the limit, is waited for; not for ever") {
  for (const int settings : {0, 100}) {
    int listener = -1;
    const int port = listening_port(listener, true);
    std::thread server([&] {
      using namespace std::string_literals;
      const int session = ::accept(listener, nullptr, nullptr);
      const std::string password_please = "R\0\0\0\x08\0\0\0\x03"s;
      const std::string welcome = "R\0\0\0\x08\0\0\0\0"s;
      const std::string setting = "S\0\0\0\x08a\0b\0"s;
      const std::string ready = "Z\0\0\0\x05I"s;
      const auto say = [&](const std::string& words) {
        std::this_thread::sleep_for(milliseconds{200});
        return ::send(session, words.data(), words.size(), MSG_NOSIGNAL) > 0;
      };
      bool there = say(password_please) && say(welcome);
      for (int i = 0; i < settings && there; ++i) there = say(setting);
      if (there) say(ready);
      ::close(session);
    });
    const bool in_time = connect_kind(port) != pg::ConnectionError::Kind::timeout;
    CHECK(in_time == (settings == 0));
    server.join();
    ::close(listener);
  }
}

TEST_CASE("processes: output, exit codes, missing programs") {
  run([]() -> asio::awaitable<void> {
    std::vector<std::string> argv{"sh", "-c", "echo one; echo two >&2; exit 3"};
    std::vector<std::string> lines;
    os::ProcessOptions options;
    options.on_line = [&](const std::string& line) { lines.push_back(line); };
    const os::ProcessResult result = co_await os::run(argv, options);
    CHECK(result.exit_code == 3);
    CHECK(result.output == "one\ntwo\n");
    CHECK(lines == std::vector<std::string>{"one", "two"});
    std::vector<std::string> killed{"sh", "-c", "kill -9 $$"};
    const os::ProcessResult signalled = co_await os::run(killed);
    CHECK(signalled.signal == SIGKILL);
    CHECK_FALSE(signalled.ok());
    std::vector<std::string> missing{"/no/such/program"};
    bool thrown = false;
    try {
      co_await os::run(missing);
    } catch (const Error&) {
      thrown = true;
    }
    CHECK(thrown);
  });
}

TEST_CASE("a process that runs out of time goes with its whole group") {
  run([]() -> asio::awaitable<void> {
    const std::string file = "/tmp/pgvigil-unit-pid." + std::to_string(::getpid());
    std::vector<std::string> argv{"sh", "-c", "sleep 1000 & echo $! > " + file + "; wait"};
    os::ProcessOptions options;
    options.timeout = milliseconds{300};
    const os::ProcessResult result = co_await os::run(argv, options);
    CHECK(result.timed_out);
    CHECK(result.output == "sh was ended after 300 ms");
    FILE* in = std::fopen(file.c_str(), "r");
    int pid = 0;
    REQUIRE(in != nullptr);
    CHECK(std::fscanf(in, "%d", &pid) == 1);
    std::fclose(in);
    std::filesystem::remove(file);
    const auto grandchild = os::PidFd::open(pid);
    if (grandchild) CHECK(co_await grandchild->wait_exit(milliseconds{2000}));
  });
}

TEST_CASE("the first exception of a race is thrown, the others are cancelled") {
  run([]() -> asio::awaitable<void> {
    bool finished = false;
    const auto fails = []() -> asio::awaitable<void> {
      co_await os::sleep_for(milliseconds{10});
      throw Error("first");
    };
    const auto waits = [&]() -> asio::awaitable<void> {
      co_await os::sleep_for(std::chrono::hours{1});
      finished = true;
    };
    std::string caught;
    try {
      co_await os::race(fails(), waits());
    } catch (const Error& error) {
      caught = error.what();
    }
    CHECK(caught == "first");
    CHECK_FALSE(finished);
  });
}

TEST_CASE("an event set before the wait is not lost") {
  run([]() -> asio::awaitable<void> {
    os::Event event(co_await asio::this_coro::executor);
    event.set();
    CHECK(co_await event.wait(milliseconds{1000}));
    CHECK_FALSE(co_await event.wait(milliseconds{5}));
  });
}
