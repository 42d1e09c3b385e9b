// comm/byte_ring.h
// A one-writer one-reader byte stream in memory that two processes may share. No locks: a process killed in
// the middle of a call leaves the other side able to notice and go on. Offsets are free-running 64-bit
// counters. The reader does not trust what the writer's counter says beyond the capacity (a foreign process
// may be mad).
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace stoker::comm {

class ByteRing {
 public:
  struct alignas(64) Header {
    alignas(64) std::atomic<uint64_t> written;
    alignas(64) std::atomic<uint64_t> read;
  };
  static_assert(std::atomic<uint64_t>::is_always_lock_free);

  ByteRing() = default;
  ByteRing(Header* header, std::byte* data, size_t capacity)
      : header_(header), data_(data), capacity_(capacity) {}

  // Copies as much as fits; returns how much.
  size_t write(const std::byte* from, size_t bytes) {
    const uint64_t written = header_->written.load(std::memory_order_relaxed);
    const uint64_t used = written - header_->read.load(std::memory_order_acquire);
    const size_t n = std::min<size_t>(bytes, used > capacity_ ? 0 : capacity_ - used);
    if (n == 0) return 0;
    const size_t at = written % capacity_, first = std::min(n, capacity_ - at);
    std::memcpy(data_ + at, from, first);
    std::memcpy(data_, from + first, n - first);
    header_->written.store(written + n, std::memory_order_release);
    return n;
  }
  size_t read(std::byte* to, size_t bytes) {
    const uint64_t done = header_->read.load(std::memory_order_relaxed);
    const uint64_t have = header_->written.load(std::memory_order_acquire) - done;
    const size_t n = std::min<size_t>(bytes, std::min<uint64_t>(have, capacity_));
    if (n == 0) return 0;
    const size_t at = done % capacity_, first = std::min(n, capacity_ - at);
    std::memcpy(to, data_ + at, first);
    std::memcpy(to + first, data_, n - first);
    header_->read.store(done + n, std::memory_order_release);
    return n;
  }
  size_t readable() const {
    return static_cast<size_t>(header_->written.load(std::memory_order_acquire) -
                               header_->read.load(std::memory_order_relaxed));
  }
  size_t writable() const {
    const uint64_t used =
        header_->written.load(std::memory_order_relaxed) - header_->read.load(std::memory_order_acquire);
    return used > capacity_ ? 0 : capacity_ - used;
  }

 private:
  Header* header_ = nullptr;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace stoker::comm
