// io/faulty_file_system.h
// Wraps a FileSystem and makes chosen operations fail. Operations that change or read contents are counted
// from 0 in the order they are issued (create, append/write_at, sync, close, make_dirs, rename, remove,
// sync_dir; read_at, map when reads are counted). arm() chooses one and what happens there:
//   kFullDisk    the operation does nothing and throws ENOSPC
//   kShortWrite  half of a write lands, then ENOSPC; other operations: as kFullDisk
//   kIoError     EIO
//   kCrash       the operation does nothing, throws Crashed, and so does every later one: the process is "dead"
//   kTornCrash   as kCrash, but half of a write lands first
// For tests; thread-safe.
#pragma once
#include <mutex>

#include "io/file_system.h"

namespace stoker::io {

enum class Fault { kFullDisk, kShortWrite, kIoError, kCrash, kTornCrash };

class Crashed : public std::runtime_error {
 public:
  Crashed() : std::runtime_error("simulated crash") {}
};

class FaultyFileSystem final : public FileSystem {
 public:
  enum class Count { kWrites, kReads };

  explicit FaultyFileSystem(FileSystem& base, Count count = Count::kWrites) : base_(base), count_(count) {}
  // The fault strikes at operation `at` and the `times - 1` following ones (of no account for crashes); with `in`, at those from `at`
  // on whose path holds it.
  void arm(Fault fault, uint64_t at, uint64_t times = 1, std::string in = "");
  uint64_t operations() const;  // counted so far

  std::unique_ptr<ReadableFile> open_read(const std::string& path, Access access = Access::kNormal) override;
  std::unique_ptr<WritableFile> create(const std::string& path) override;
  std::unique_ptr<WritableFile> open_append(const std::string& path) override;
  bool exists(const std::string& path) override;
  FileInfo info(const std::string& path) override;
  std::vector<std::string> list(const std::string& directory) override;
  void make_dirs(const std::string& directory) override;
  void rename(const std::string& from, const std::string& to) override;
  void remove(const std::string& path) override;
  void sync_dir(const std::string& directory) override;
  uint64_t free_bytes(const std::string& path) override;

  // For the wrapped files: counts one operation; throws when the fault says so. Returns how many of `bytes` a
  // write may still land before land_then_fail().
  size_t before_write(std::string_view operation, const std::string& path, size_t bytes);
  void before_read(std::string_view operation, const std::string& path);
  [[noreturn]] void land_then_fail(const std::string& path);

 private:
  void before(std::string_view operation, const std::string& path);
  void check_alive() const;
  bool strikes_now(const std::string& path);
  [[noreturn]] void strike(std::string_view operation, const std::string& path);

  FileSystem& base_;
  Count count_;
  mutable std::mutex mutex_;
  bool armed_ = false, dead_ = false;
  Fault fault_ = Fault::kIoError;
  uint64_t at_ = 0, times_ = 0, operations_ = 0;
  std::string in_;
};

}  // namespace stoker::io
