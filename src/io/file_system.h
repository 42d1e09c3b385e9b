// io/file_system.h
// The seam to storage. Real: real_file_system(). Fake: MemoryFileSystem. Trouble: FaultyFileSystem.
// Paths       plain strings, '/' between parts; relative ones are relative to the process
// Errors      Usage: nothing there, not a directory, no permission (retrying cannot help). Storage: full
//             disk (with the space left), I/O error and the rest (retry with backoff, then stop). Data: a
//             file ended before the range asked for. Messages hold the operation, the path and the system's
//             words
// Durability  nothing is durable before sync(); a name (create, rename, remove) is not before
//             sync_dir(parent). make_dirs alone syncs what it makes. io/atomic_write.h packs the right
//             order
// Threads     a FileSystem and a ReadableFile may be used from several threads at once, a WritableFile from
//             one
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace stoker::io {

// Throws the Error for a failed system call: fail_errno("write", path, ENOSPC, free_bytes).
[[noreturn]] void fail_errno(std::string_view operation, const std::string& path, int error_number,
                             uint64_t free_bytes = 0);

enum class Access { kNormal, kSequential, kRandom };  // a hint to the page cache

struct FileInfo {
  uint64_t size = 0;
  bool directory = false;
  double modified_unix_s = 0;
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual const std::string& path() const = 0;
  virtual uint64_t size() const = 0;  // when it was opened
  // Exactly `bytes` bytes from `offset`, or an error.
  virtual void read_at(uint64_t offset, void* to, size_t bytes) const = 0;
  // The whole file as memory, valid as long as this object: mapped read-only, pages come in when touched. A
  // file that somebody shortens while it is mapped ends the process (SIGBUS): map only what is never changed
  // in place.
  virtual std::span<const std::byte> map() const = 0;
  std::string_view text() const {
    const auto bytes = map();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
};

class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes; an error at that point is lost: call close()
  virtual const std::string& path() const = 0;
  virtual uint64_t size() const = 0;  // end of what has been written
  virtual void append(const void* data, size_t bytes) = 0;
  void append(std::string_view text) { append(text.data(), text.size()); }
  virtual void write_at(uint64_t offset, const void* data, size_t bytes) = 0;  // not after open_append
  virtual void sync() = 0;  // data and size are on the device
  virtual void close() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual std::unique_ptr<ReadableFile> open_read(const std::string& path,
                                                  Access access = Access::kNormal) = 0;
  virtual std::unique_ptr<WritableFile> create(const std::string& path) = 0;       // empties an existing file
  virtual std::unique_ptr<WritableFile> open_append(const std::string& path) = 0;  // creates a missing one
  virtual bool exists(const std::string& path) = 0;
  virtual FileInfo info(const std::string& path) = 0;
  virtual std::vector<std::string> list(const std::string& directory) = 0;  // names, sorted; no "." and ".."
  virtual void make_dirs(const std::string& directory) = 0;  // and its parents; durable on return
  virtual void rename(const std::string& from,
                      const std::string& to) = 0;    // replaces a file or empty directory
  virtual void remove(const std::string& path) = 0;  // a file or an empty directory
  virtual void sync_dir(const std::string& directory) = 0;
  virtual uint64_t free_bytes(
      const std::string& path) = 0;  // on the file system that holds or would hold path
};

FileSystem& real_file_system();

// The directory that holds path ("." for a bare name), the last part, and the two put together.
std::string parent_of(const std::string& path);
std::string name_of(const std::string& path);
std::string join(const std::string& directory, std::string_view name);

// A small text file whole. Data when it is larger than max_bytes.
std::string read_text(FileSystem& fs, const std::string& path, uint64_t max_bytes = uint64_t{64} << 20);
// A directory and all below it; a missing one is fine.
void remove_tree(FileSystem& fs, const std::string& path);

}  // namespace stoker::io
