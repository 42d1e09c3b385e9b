#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "base/checked.h"
#include "io/file_system.h"
#include "io/transfer.h"

namespace stoker::io {
namespace {

uint64_t space_left(std::string path) {
  struct statvfs s;
  for (;;) {
    if (statvfs(path.c_str(), &s) == 0) return static_cast<uint64_t>(s.f_bavail) * s.f_frsize;
    if (errno == EINTR) continue;
    std::string parent = parent_of(path);
    if (errno != ENOENT || parent == path) return 0;
    path = std::move(parent);
  }
}

[[noreturn]] void fail_here(std::string_view operation, const std::string& path) {
  const int error_number = errno;
  const bool full = error_number == ENOSPC || error_number == EDQUOT;
  fail_errno(operation, path, error_number, full ? space_left(path) : 0);
}

int open_retrying(const std::string& path, int flags, mode_t mode = 0) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class RealReadable final : public ReadableFile {
 public:
  RealReadable(const std::string& path, Access access) : path_(path), fd_(open_retrying(path, O_RDONLY)) {
    if (fd_.get() < 0) fail_here("open", path_);
    struct stat s;
    if (fstat(fd_.get(), &s) != 0) fail_here("stat", path_);
    if (S_ISDIR(s.st_mode))
      fail(ErrorKind::kUsage, "cannot read '{}': it is a directory, expected a file.", path_);
    if (!S_ISREG(s.st_mode))
      fail(ErrorKind::kUsage, "cannot read '{}': it is a pipe or device, expected a regular file.", path_);
    size_ = static_cast<uint64_t>(s.st_size);
    advice_ = access == Access::kSequential ? POSIX_FADV_SEQUENTIAL
              : access == Access::kRandom   ? POSIX_FADV_RANDOM
                                            : POSIX_FADV_NORMAL;
    if (advice_ != POSIX_FADV_NORMAL) (void)posix_fadvise(fd_.get(), 0, 0, advice_);
  }
  ~RealReadable() override {
    if (map_) munmap(map_, size_);
  }
  const std::string& path() const override { return path_; }
  uint64_t size() const override { return size_; }

  void read_at(uint64_t offset, void* to, size_t bytes) const override {
    const ssize_t got = transfer_all(bytes, false, [&](size_t done, size_t n) {
      return ::pread(fd_.get(), static_cast<char*>(to) + done, n,
                     checked_cast<off_t>(checked_add<uint64_t>(offset, done, path_), path_));
    });
    if (got < 0) fail_here("read", path_);
    if (static_cast<size_t>(got) != bytes)
      fail(ErrorKind::kData, "'{}' ends at byte {}: expected {} bytes from byte {}. The file is truncated.",
           path_, offset + static_cast<uint64_t>(got), bytes, offset);
  }

  std::span<const std::byte> map() const override {
    if (size_ == 0) return {};
    std::lock_guard lock(mapping_);
    if (!map_) {
      void* p = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_.get(), 0);
      if (p == MAP_FAILED) fail_here("map", path_);
      if (advice_ != POSIX_FADV_NORMAL)
        (void)madvise(p, size_, advice_ == POSIX_FADV_RANDOM ? MADV_RANDOM : MADV_SEQUENTIAL);
      map_ = p;
    }
    return {static_cast<const std::byte*>(map_), size_};
  }

 private:
  std::string path_;
  Descriptor fd_;
  uint64_t size_ = 0;
  int advice_ = POSIX_FADV_NORMAL;
  mutable std::mutex mapping_;
  mutable void* map_ = nullptr;
};

class RealWritable final : public WritableFile {
 public:
  RealWritable(const std::string& path, bool append)
      : path_(path),
        append_(append),
        fd_(open_retrying(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC), 0644)) {
    if (fd_.get() < 0) fail_here(append ? "open" : "create", path_);
    if (append) {
      struct stat s;
      if (fstat(fd_.get(), &s) != 0) fail_here("stat", path_);
      size_ = static_cast<uint64_t>(s.st_size);
    }
  }
  const std::string& path() const override { return path_; }
  uint64_t size() const override { return size_; }

  void append(const void* data, size_t bytes) override {
    if (!append_) return write_at(size_, data, bytes);
    const ssize_t put = transfer_all(bytes, true, [&](size_t done, size_t n) {
      return ::write(fd_.get(), static_cast<const char*>(data) + done, n);
    });
    if (put < 0) fail_here("write", path_);
    size_ += bytes;
  }

  void write_at(uint64_t offset, const void* data, size_t bytes) override {
    STOKER_CHECK(!append_, "{} is open for appending", path_);
    const uint64_t end = checked_add<uint64_t>(offset, bytes, path_);
    const ssize_t put = transfer_all(bytes, true, [&](size_t done, size_t n) {
      return ::pwrite(fd_.get(), static_cast<const char*>(data) + done, n, static_cast<off_t>(offset + done));
    });
    if (put < 0) fail_here("write", path_);
    size_ = std::max(size_, end);
  }

  void sync() override {
    // Not retried: after a failed fsync Linux may have dropped the pages and would report success the second
    // time.
    if (::fsync(fd_.get()) != 0) fail_here("sync", path_);
  }

  void close() override {
    if (fd_.get() < 0) return;
    if (::close(fd_.release()) != 0 && errno != EINTR) fail_here("close", path_);
  }

 private:
  std::string path_;
  bool append_;
  Descriptor fd_;
  uint64_t size_ = 0;
};

class RealFileSystem final : public FileSystem {
 public:
  std::unique_ptr<ReadableFile> open_read(const std::string& path, Access access) override {
    return std::make_unique<RealReadable>(path, access);
  }
  std::unique_ptr<WritableFile> create(const std::string& path) override {
    return std::make_unique<RealWritable>(path, false);
  }
  std::unique_ptr<WritableFile> open_append(const std::string& path) override {
    return std::make_unique<RealWritable>(path, true);
  }
  bool exists(const std::string& path) override {
    struct stat s;
    if (stat(path.c_str(), &s) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    fail_here("stat", path);
  }
  FileInfo info(const std::string& path) override {
    struct stat s;
    if (stat(path.c_str(), &s) != 0) fail_here("stat", path);
    return {static_cast<uint64_t>(s.st_size), S_ISDIR(s.st_mode),
            static_cast<double>(s.st_mtim.tv_sec) + 1e-9 * static_cast<double>(s.st_mtim.tv_nsec)};
  }
  std::vector<std::string> list(const std::string& directory) override {
    DIR* dir = opendir(directory.c_str());
    if (!dir) fail_here("list", directory);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(dir)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error_number = errno;
    closedir(dir);
    if (error_number) fail_errno("list", directory, error_number);
    std::sort(names.begin(), names.end());
    return names;
  }
  void make_dirs(const std::string& directory) override {
    if (directory.empty() || exists(directory)) {
      if (!directory.empty() && !info(directory).directory) fail_errno("make directory", directory, ENOTDIR);
      return;
    }
    const std::string parent = parent_of(directory);
    make_dirs(parent);
    if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) fail_here("make directory", directory);
    sync_dir(parent);
  }
  void rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) fail_here("rename to '" + to + "' the path", from);
  }
  void remove(const std::string& path) override {
    if (::remove(path.c_str()) != 0) fail_here("remove", path);
  }
  void sync_dir(const std::string& directory) override {
    const Descriptor fd(open_retrying(directory, O_RDONLY | O_DIRECTORY));
    if (fd.get() < 0) fail_here("open directory", directory);
    // Some network file systems cannot sync a directory and say EINVAL; their names are durable when the call
    // returns.
    if (::fsync(fd.get()) != 0 && errno != EINVAL) fail_here("sync directory", directory);
  }
  uint64_t free_bytes(const std::string& path) override { return space_left(path); }
};

}  // namespace

FileSystem& real_file_system() {
  static RealFileSystem fs;
  return fs;
}

}  // namespace stoker::io
