#include "common/os/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "common/model/types.hpp"

namespace pgvigil::os {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const std::string& doing, const fs::path& path) {
  throw Error("cannot " + doing + " " + path.string() + ": " + std::strerror(errno));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

void write_all(int fd, std::string_view content, const fs::path& path) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", path);
    content.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_directory(const fs::path& directory) {
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail("open", directory);
  if (::fsync(fd.get()) != 0) fail("fsync", directory);
}

}  // namespace

void write_file_atomic(const fs::path& path, std::string_view content, unsigned mode) {
  const fs::path temporary = path.string() + ".tmp." + std::to_string(::getpid());
  {
    const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, static_cast<mode_t>(mode)));
    if (fd.get() < 0) fail("create", temporary);
    try {
      if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) fail("set the mode of", temporary);
      write_all(fd.get(), content, temporary);
      if (::fsync(fd.get()) != 0) fail("fsync", temporary);
    } catch (...) {
      ::unlink(temporary.c_str());
      throw;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    ::unlink(temporary.c_str());
    errno = reason;
    fail("replace", path);
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void remove_for_good(const fs::path& path) {
  fs::remove(path);
  sync_directory(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

std::optional<std::string> read_file(const fs::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    fail("open", path);
  }
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path);
    if (got == 0) return content;
    content.append(buffer, static_cast<std::size_t>(got));
  }
}

std::string read_secret_file(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    throw UserError(ExitCode::bad_config,
                    "cannot read the password file " + path.string() + ": " + std::strerror(errno),
                    "name an existing file that holds the password alone");
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    throw UserError(ExitCode::bad_config, "the password file " + path.string() + " is open to group or others",
                    "chmod 600 it");
  }
  std::string secret = read_file(path).value_or(std::string());
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  if (secret.empty()) throw UserError(ExitCode::bad_config, "the password file " + path.string() + " is empty");
  return secret;
}

void make_directories(const fs::path& path, unsigned mode) {
  if (fs::is_directory(path)) return;
  std::error_code error;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  if (::mkdir(path.c_str(), static_cast<mode_t>(mode)) != 0 && errno != EEXIST) fail("create the directory", path);
  if (!fs::is_directory(path)) {
    errno = ENOTDIR;
    fail("use as a directory", path);
  }
}

std::string random_secret() {
  unsigned char bytes[32];
  if (::getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) throw Error("getrandom failed");
  static const char digits[] = "0123456789abcdef";
  std::string secret;
  for (const unsigned char byte : bytes) secret += {digits[byte >> 4], digits[byte & 15]};
  return secret;
}

std::optional<PidFile> PidFile::acquire(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) fail("create", path);
  // holder() locks it for a moment, too.
  int locked = ::flock(fd, LOCK_EX | LOCK_NB);
  for (int i = 0; i < 20 && locked != 0 && errno == EWOULDBLOCK; ++i) {
    ::usleep(10'000);
    locked = ::flock(fd, LOCK_EX | LOCK_NB);
  }
  if (locked != 0) {
    const int reason = errno;
    ::close(fd);
    errno = reason;
    if (reason == EWOULDBLOCK) return std::nullopt;
    fail("lock", path);
  }
  PidFile file(fd, path);
  if (::ftruncate(fd, 0) != 0) fail("truncate", path);
  write_all(fd, std::to_string(::getpid()) + "\n", path);
  return file;
}

std::optional<int> PidFile::holder(const fs::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    fail("open", path);
  }
  if (::flock(fd.get(), LOCK_SH | LOCK_NB) == 0) return std::nullopt;  // nobody holds it
  const std::string text = read_file(path).value_or(std::string());
  int pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  return pid > 0 ? std::optional(pid) : std::nullopt;
}

PidFile::PidFile(int fd, fs::path path) : fd_(fd), path_(std::move(path)) {}
PidFile::PidFile(PidFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
PidFile::~PidFile() {
  // The file stays: removing it would race with the next holder. The lock is what counts.
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace pgvigil::os
