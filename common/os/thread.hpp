// Work that may hang: in a disk that does not answer no signal ends it.
#pragma once
#include <signal.h>

#include <chrono>
#include <functional>
#include <future>
#include <optional>
#include <thread>
#include <utility>

namespace pgvigil::os {

// In a thread of its own that is never joined; signals are the main thread's. While it hangs this process cannot end.
// What it uses has to be its own. Throws std::system_error where there is no room for a thread.
template <typename T>
std::future<T> in_thread(std::function<T()> work) {
  std::packaged_task<T()> task(std::move(work));
  auto result = task.get_future();
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread(std::move(task)).detach();
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

// Writes to files, one after the other, each waited for no longer than a disk takes that is well.
class FileWork {
 public:
  using Millis = std::chrono::milliseconds;
  static constexpr Millis usual{1000};
  explicit FileWork(Millis patience = usual) : patience_(patience) {}

  // False: it is not over, or the one before is not, and then it is not begun. Throws what the work throws.
  bool run(std::function<void()> work);
  bool busy() const;  // something is on its way
  // Nothing is on its way (any more). Throws, once, what work threw that has ended since.
  bool over();

 private:
  bool waited(Millis limit);
  Millis patience_;
  std::optional<std::future<void>> work_;
};

}  // namespace pgvigil::os
