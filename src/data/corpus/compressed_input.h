// data/corpus/compressed_input.h
// The bytes of one input file in order, decompressed on the way: gzip (also several members, dictzip), zstd
// (several frames), xz (several streams), or none. Told apart by the first bytes, not by the name. Memory 1
// MiB of stored bytes plus the decoder's window (at most 256 MiB, which real files do not reach) Limits a
// stream that grows beyond max_ratio x its stored bytes + 64 MiB is a bomb: Data Errors        Data:
// truncated, corrupt, trailing garbage, bomb; names the file and the stored offset. Storage, Usage: as the
//               file system says
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "io/file_system.h"

namespace stoker::corpus {

enum class Compression { kNone, kGzip, kZstd, kXz };
Compression detect_compression(std::string_view first_bytes);

struct InputLimits {
  uint64_t max_ratio = 250;
};

class CompressedInput {
 public:
  CompressedInput(io::FileSystem& fs, const std::string& path, InputLimits limits = {});
  ~CompressedInput();
  CompressedInput(const CompressedInput&) = delete;
  // Up to `bytes` bytes; fewer only before the end, 0 at the end.
  size_t read(char* to, size_t bytes);
  // XXH3-128 of the file as it is stored; reads what is left of it. Also after an error.
  Hash128 stored_hash();
  uint64_t stored_bytes() const { return file_->size(); }
  uint64_t stored_done() const { return stored_done_; }  // bytes taken from the file so far
  uint64_t produced() const { return produced_; }
  Compression compression() const { return compression_; }

 private:
  struct Decoder;
  void decode();
  bool refill();  // false: nothing is left in the file
  [[noreturn]] void corrupt(std::string_view what) const;
  [[noreturn]] void truncated() const;
  size_t read_gzip(char* to, size_t bytes);
  size_t read_zstd(char* to, size_t bytes);
  size_t read_xz(char* to, size_t bytes);

  std::unique_ptr<io::ReadableFile> file_;
  std::string path_;
  InputLimits limits_;
  Compression compression_ = Compression::kNone;
  std::vector<char> stored_, decoded_;
  size_t at_ = 0;                            // in stored_
  size_t decoded_at_ = 0, decoded_end_ = 0;  // in decoded_
  uint64_t stored_done_ = 0, produced_ = 0;
  Hasher hasher_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace stoker::corpus
