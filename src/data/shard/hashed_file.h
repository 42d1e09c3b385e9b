// data/shard/hashed_file.h
// Puts many small values into a file, in large writes, and hashes what it puts there.
// Errors  Storage: as the file system says
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/shard/manifest.h"
#include "io/file_system.h"

namespace stoker::data {

class HashedFile {
 public:
  explicit HashedFile(io::WritableFile& file) : file_(file) { buffer_.reserve(kBufferBytes); }
  void append(const void* data, size_t bytes) {
    if (buffer_.size() + bytes > kBufferBytes) flush();
    const auto* begin = static_cast<const char*>(data);
    buffer_.insert(buffer_.end(), begin, begin + bytes);
  }
  template <typename Value>
  void put(const Value& value) {
    append(&value, sizeof value);
  }
  // All of it is with the file, not yet synced.
  FileRecord finish(std::string name) {
    flush();
    return {std::move(name), bytes_, hasher_.digest()};
  }

 private:
  static constexpr size_t kBufferBytes = size_t{256} << 10;
  void flush() {
    file_.append(buffer_.data(), buffer_.size());
    hasher_.update(buffer_.data(), buffer_.size());
    bytes_ += buffer_.size();
    buffer_.clear();
  }
  io::WritableFile& file_;
  std::vector<char> buffer_;
  Hasher hasher_;
  uint64_t bytes_ = 0;
};

}  // namespace stoker::data
