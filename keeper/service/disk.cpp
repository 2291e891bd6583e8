#include "keeper/service/disk.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "common/os/thread.hpp"

namespace pgvigil::keeper {

namespace fs = std::filesystem;

namespace {

// A keeper that was held up (suspended, short of CPU) for longer has not waited: neither had the thread that asks.
constexpr DiskPatience::Millis longest_tick{500};

std::optional<Room> room_of(const fs::path& directory) {
  std::error_code error;
  const auto space = fs::space(directory, error);
  return error ? std::nullopt : std::optional(Room{space.available, space.capacity});
}

// The same few bytes again: no growth, so that an idle disk has next to nothing to do. An error is an answer too.
void write_a_little(const fs::path& path) {
  constexpr std::string_view words = "pgvigil asks whether this disk answers\n";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return;
  if (::pwrite(fd, words.data(), words.size(), 0) > 0) ::fdatasync(fd);
  ::close(fd);
}

}  // namespace

void DiskPatience::tick(Lsn flushed, bool asked, Millis now) {
  const Millis passed = last_ ? std::min(now - *last_, longest_tick) : Millis{0};
  last_ = now;
  const bool moved = flushed != flushed_;
  flushed_ = flushed;
  at_rest_ = moved ? Millis{0} : at_rest_ + passed;
  silent_ = moved || !asked ? Millis{0} : silent_ + passed;
}

void DiskWatch::look(const fs::path& pgdata, Lsn flushed, bool may_write, Millis now) {
  if (question_ && question_->wait_for(Millis{0}) == std::future_status::ready) {
    answer_ = question_->get();
    question_.reset();
  }
  patience_.tick(flushed, question_.has_value(), now);
  const bool write = may_write && patience_.at_rest();
  const bool lately = asked_at_ && now - *asked_at_ < DiskPatience::pause;
  if (question_ || (lately && (wrote_ || !write))) return;  // the first write is worth no waiting
  asked_at_ = now;
  wrote_ = write;
  begin(pgdata, write);
}

std::string DiskWatch::notice() const {
  if (!hung()) return {};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience_.silent_for()).count();
  return "the disk of " + file(asked_of_).parent_path().string() + " has not answered for " + std::to_string(seconds) +
         " s";
}

void DiskWatch::tidy(const fs::path& pgdata) const {
  // A question on its way would make the file again. A disk that hangs is not waited for.
  if (question_ && question_->wait_for(Millis{500}) != std::future_status::ready) return;
  std::error_code error;
  fs::remove(file(pgdata), error);
}

DiskWatch::Answer DiskWatch::ask(const fs::path& pgdata, bool write) {
  Answer answer{room_of(pgdata), room_of(file(pgdata).parent_path())};
  if (write) write_a_little(file(pgdata));
  return answer;
}

// While it hangs this process cannot end or start anew; nor could its PostgreSQL.
void DiskWatch::begin(const fs::path& pgdata, bool write) {
  asked_of_ = pgdata;
  try {
    question_ = os::in_thread<Answer>([pgdata, write] { return ask(pgdata, write); });
  } catch (const std::system_error&) {  // no room for a thread: asked again in a second
  }
}

}  // namespace pgvigil::keeper
