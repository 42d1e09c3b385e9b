// data/corpus/spill_array.h
// One value per document for as many documents as there are: an array in a nameless file that is mapped into memory, so
// that what does not fit is the system's to write out and read back. Under a memory limit a build slows down here instead of ending.
//   SpillArray<T> a(directory)     directory is made when the first value comes; empty: memory only
// Memory   none that counts for good: pages of a file, reclaimed when others need the room. Without a directory sizeof(T) per value
// Errors   Storage: no room for the file (taken before it is written to, so that a full disk is an error and no signal)
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace stoker::corpus {

template <typename T>
class SpillArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  SpillArray() = default;
  explicit SpillArray(std::string directory) : directory_(std::move(directory)) {}
  ~SpillArray() { release(); }
  SpillArray(SpillArray&& other) noexcept { swap(other); }
  SpillArray& operator=(SpillArray&& other) noexcept {
    SpillArray gone(std::move(other));
    swap(gone);
    return *this;
  }

  void push_back(const T& value) {
    if (size_ == capacity_) reserve(size_ + 1);
    data_[size_++] = value;
  }
  // n values, all like this one.
  void assign(size_t n, const T& value) {
    reserve(n);
    size_ = n;
    for (T& v : *this) v = value;
  }
  void reserve(size_t n) {
    if (n > capacity_) grow(n);
  }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  operator std::span<const T>() const { return {data_, size_}; }

 private:
  static constexpr size_t kFirstBytes = size_t{64} << 10;

  void grow(size_t n) {
    size_t bytes = std::max(kFirstBytes, capacity_ * sizeof(T) * 2);
    while (bytes / sizeof(T) < n) bytes *= 2;
    if (!directory_.empty()) {
      if (fd_ < 0) open_file();
      if (const int error = posix_fallocate(fd_, 0, static_cast<off_t>(bytes))) storage_error("grow", error);
    }
    void* const now = data_ ? mremap(data_, mapped_, bytes, MREMAP_MAYMOVE)
                            : mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                   fd_ < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd_, 0);
    if (now == MAP_FAILED) {
      if (fd_ >= 0 && errno != ENOMEM) storage_error("map", errno);
      throw std::bad_alloc();
    }
    data_ = static_cast<T*>(now);
    mapped_ = bytes;
    capacity_ = bytes / sizeof(T);
  }
  void open_file() {
    std::error_code error;
    std::filesystem::create_directories(directory_, error);
    std::string name = directory_ + "/array-XXXXXX";
    if (!error) fd_ = mkostemp(name.data(), O_CLOEXEC);
    if (fd_ < 0) storage_error("open", error ? error.value() : errno);
    unlink(name.c_str());  // it is gone with the process, whatever ends it
  }
  [[noreturn]] void storage_error(const char* what, int error) const {
    fail(ErrorKind::kStorage,
         "cannot {} a spill file in {}: {}; free space there or choose another work directory", what,
         directory_, std::strerror(error));
  }
  void release() {
    if (data_) munmap(static_cast<void*>(data_), mapped_);
    if (fd_ >= 0) close(fd_);
  }
  void swap(SpillArray& other) {
    std::swap(directory_, other.directory_);
    std::swap(fd_, other.fd_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(mapped_, other.mapped_);
  }

  std::string directory_;
  int fd_ = -1;
  T* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0, mapped_ = 0;
};

}  // namespace stoker::corpus
