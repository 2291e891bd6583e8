// Files that survive a crash, and files that keep a secret. Plain POSIX, blocking.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace pgvigil::os {

// Writes a temporary file beside `path`, fsyncs it, renames it over `path`, fsyncs the directory. `mode` as in chmod
// (0600). Throws pgvigil::Error with path and reason; `path` then has its old content.
void write_file_atomic(const std::filesystem::path& path, std::string_view content, unsigned mode = 0600);
// nullopt when there is no such file; throws pgvigil::Error on anything else.
std::optional<std::string> read_file(const std::filesystem::path& path);
// It is not there after a power loss either. No error when it was not there.
void remove_for_good(const std::filesystem::path& path);
// As read_file with the trailing newline removed; refuses (UserError bad_config) a file that is missing or that group
// or others may read.
std::string read_secret_file(const std::filesystem::path& path);
// mkdir -p; the last component gets `mode` when it is made.
void make_directories(const std::filesystem::path& path, unsigned mode = 0700);
// 32 random bytes from getrandom(2) as 64 hex digits, for a generated password.
std::string random_secret();

// An exclusive flock on `path` for the life of the object (one daemon for a node); the file holds the pid.
class PidFile {
 public:
  // nullopt when another process holds it.
  static std::optional<PidFile> acquire(const std::filesystem::path& path);
  // The pid of the process that holds `path` now, nullopt when none does.
  static std::optional<int> holder(const std::filesystem::path& path);
  PidFile(PidFile&& other) noexcept;
  PidFile& operator=(PidFile&&) = delete;
  ~PidFile();

 private:
  PidFile(int fd, std::filesystem::path path);
  int fd_;
  std::filesystem::path path_;
};

}  // namespace pgvigil::os
