// Coroutines over processes, sockets and timers: results, limits, cancellation.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "common/os/event.hpp"
#include "common/os/process.hpp"
#include "common/os/race.hpp"
#include "common/os/thread.hpp"
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

pg::ConnectionError::Kind connect_kind(const std::string& place) {
  pg::ConnectionError::Kind kind = pg::ConnectionError::Kind::other;
  run([&]() -> asio::awaitable<void> {
    const std::string conninfo = place + " dbname=x user=y password=hush sslmode=disable";
    try {
      pg::Connection connection = co_await pg::Connection::connect(conninfo, milliseconds{300});
    } catch (const pg::ConnectionError& error) {
      kind = error.kind;
      CHECK(std::string(error.what()).find("hush") == std::string::npos);
    }
  });
  return kind;
}

pg::ConnectionError::Kind connect_kind(int port) {
  return connect_kind("host=127.0.0.1 port=" + std::to_string(port));
}

// A port of a host that has vanished, as far as a client can see: nothing answers its SYN, for the queue of sessions
// that nobody accepts is full.
class Silence {
 public:
  Silence() : port(listening_port(listener_, false)) {
    ::listen(listener_, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    for (int& session : waiting_) {
      session = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      ::connect(session, reinterpret_cast<sockaddr*>(&address), sizeof address);
    }
  }
  ~Silence() {
    for (const int session : waiting_) ::close(session);
    ::close(listener_);
  }

 private:
  int listener_{-1};
  std::array<int, 4> waiting_{};

 public:
  const int port;
};

}  // namespace

TEST_CASE("behind an address that is silent the others are tried") {
  const Silence first;
  const Silence second;
  int fd = -1;
  const std::string silent = std::to_string(first.port);
  const std::string closed = std::to_string(listening_port(fd, false));
  const std::string three = "host=127.0.0.1,127.0.0.1,127.0.0.1 port=" + silent + ",";
  CHECK(connect_kind(first.port) == pg::ConnectionError::Kind::timeout);
  CHECK(connect_kind("host=127.0.0.1,127.0.0.1 port=" + silent + "," + closed) == pg::ConnectionError::Kind::refused);
  CHECK(connect_kind(three + std::to_string(second.port) + "," + closed) == pg::ConnectionError::Kind::refused);
  CHECK(connect_kind(three + closed + "," + std::to_string(second.port)) == pg::ConnectionError::Kind::timeout);
  CHECK(connect_kind("hostaddr=127.0.0.1,127.0.0.1 port=" + silent + "," + closed) ==
        pg::ConnectionError::Kind::refused);
  std::optional<pg::ConnectionError::Kind> blocking;
  try {
    pg::BlockingConnection(three + silent + "," + closed + " dbname=x user=y sslmode=disable", milliseconds{300});
  } catch (const pg::ConnectionError& error) {
    blocking = error.kind;
  }
  CHECK(blocking == pg::ConnectionError::Kind::refused);
  ::close(fd);
}

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

TEST_CASE("who is rejected knows it in any language of the server, and from who hangs up") {
  using namespace std::string_literals;
  const auto error = [](const std::string& fields) {
    const auto size = static_cast<unsigned char>(4 + fields.size());
    return "E\0\0\0"s + static_cast<char>(size) + fields;
  };
  const std::string russian = error("S\u0412\u0410\u0416\u041d\u041e\0VFATAL\0C28P01\0M\u043d\u0435\u0442\0\0"s);
  const std::string password_please = "R\0\0\0\x08\0\0\0\x03"s;
  const std::string welcome = "R\0\0\0\x08\0\0\0\0"s;
  using Kind = pg::ConnectionError::Kind;
  struct Case {
    std::vector<std::string> said;
    Kind kind;
  };
  const std::vector<Case> cases{{{russian}, Kind::rejected},
                                {{password_please, russian}, Kind::rejected},
                                {{password_please, welcome, russian}, Kind::rejected},
                                {{error("SFATAL\0VFATAL\0C53300\0Mtoo many\0\0"s)}, Kind::rejected},
                                {{}, Kind::lost},
                                {{password_please}, Kind::lost}};
  for (const Case& one : cases) {
    CAPTURE(&one - cases.data());
    int listener = -1;
    const int port = listening_port(listener, true);
    std::thread server([&] {
      const int session = ::accept(listener, nullptr, nullptr);
      char heard[1000];
      ssize_t bytes = ::recv(session, heard, sizeof heard, 0);
      for (const std::string& words : one.said) {
        ::send(session, words.data(), words.size(), MSG_NOSIGNAL);
        if (words == password_please) bytes = ::recv(session, heard, sizeof heard, 0);
      }
      CHECK(bytes > 0);
      ::close(session);
    });
    CHECK(connect_kind(port) == one.kind);
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

namespace {

// From here on this process cannot open a pidfd, as when it has too many open files.
bool refuse_pidfds() {
  sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EMFILE),
                           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter{sizeof program / sizeof program[0], program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

TEST_CASE("a process that cannot be watched is no success, and is not taken for one that has ended") {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!refuse_pidfds()) ::_exit(1);
    int thrown = 0;
    try {
      run([]() -> asio::awaitable<void> {
        std::vector<std::string> argv{"false"};
        co_await os::run(argv);
      });
    } catch (const Error&) {
      ++thrown;
    }
    try {
      os::PidFd::open(::getpid());
    } catch (const Error&) {
      ++thrown;
    }
    ::_exit(thrown == 2 ? 0 : 2);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
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

TEST_CASE("what a program has started ends with it, whoever ended it and though its output is open still") {
  run([]() -> asio::awaitable<void> {
    std::vector<std::string> argv{"sh", "-c", "sleep 1000 & echo $!; kill -9 $$"};
    os::ProcessOptions options;
    options.timeout = std::chrono::seconds{20};
    const os::ProcessResult result = co_await os::run(argv, options);
    CHECK_FALSE(result.timed_out);
    CHECK(result.signal == SIGKILL);
    CHECK(result.last_line() == "sh was ended by signal 9");
    const auto left = os::PidFd::open(std::stoi(result.output));
    if (left) CHECK(co_await left->wait_exit(milliseconds{2000}));
  });
}

TEST_CASE("a program that has closed its output may take no longer either") {
  run([]() -> asio::awaitable<void> {
    std::vector<std::string> argv{"sh", "-c", "exec >/dev/null 2>&1; sleep 1000"};
    os::ProcessOptions options;
    options.timeout = milliseconds{300};
    const os::ProcessResult result = co_await os::run(argv, options);
    CHECK(result.timed_out);
  });
}

TEST_CASE("what a program's children say shortly after its end belongs to its output") {
  run([]() -> asio::awaitable<void> {
    std::vector<std::string> argv{"sh", "-c", "(sleep 0.2; echo late) & echo early"};
    const os::ProcessResult result = co_await os::run(argv);
    CHECK(result.ok());
    CHECK(result.output == "early\nlate\n");
  });
}

TEST_CASE("work that hangs is waited for no longer than a disk that is well takes, and nothing is begun beside it") {
  os::FileWork work(milliseconds{20});
  const auto gate = std::make_shared<std::promise<void>>();
  const auto second = std::make_shared<std::atomic<bool>>(false);
  CHECK(work.run([] {}));
  CHECK(work.over());
  CHECK_FALSE(work.run([gate] {
    gate->get_future().wait();
    throw std::runtime_error("refused at last");
  }));
  CHECK(work.busy());
  CHECK_FALSE(work.over());
  CHECK_FALSE(work.run([second] { *second = true; }));
  gate->set_value();
  while (work.busy()) std::this_thread::yield();
  CHECK_THROWS_WITH(work.over(), "refused at last");
  CHECK(work.over());
  CHECK_FALSE(second->load());
  CHECK_THROWS_WITH(work.run([] { throw std::runtime_error("at once"); }), "at once");
  CHECK(work.over());
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
