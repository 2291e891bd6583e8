#include "common/os/thread.hpp"

namespace pgvigil::os {

bool FileWork::run(std::function<void()> work) {
  if (!over()) return false;
  work_ = in_thread<void>(std::move(work));
  return waited(patience_);
}

bool FileWork::busy() const {
  return work_ && work_->wait_for(Millis{0}) != std::future_status::ready;
}

bool FileWork::over() {
  return waited(Millis{0});
}

bool FileWork::waited(Millis limit) {
  if (!work_) return true;
  if (work_->wait_for(limit) != std::future_status::ready) return false;
  std::exchange(work_, std::nullopt)->get();
  return true;
}

}  // namespace pgvigil::os
