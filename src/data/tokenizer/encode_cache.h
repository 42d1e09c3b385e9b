// data/tokenizer/encode_cache.h
// Piece -> tokens for the pieces of a text, most of which have been seen before. What one thread needs to encode: a
// table of short pieces (64-byte buckets of two; a full bucket spills into the next few, and only then is an entry replaced), a table of longer ones, buffers.
// The content never changes a result, only its speed. One thread at a time. Private to this room.
// Memory  8 MB of table on huge pages where the system has them, touched as it fills; 22 MB at most with the long pieces
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/piece_key.h"
#include "data/tokenizer/split_batch.h"

namespace stoker::tokenizer {

class EncodeCache {
 public:
  // whole(piece): the token to use without merging, or -1. Both are referred to, not copied.
  EncodeCache(const Bpe& bpe, const std::function<int32_t(std::string_view)>& whole);
  ~EncodeCache();
  EncodeCache(const EncodeCache&) = delete;

  // Appends the tokens of text, split by `find`.
  void encode(const PieceFinder& find, std::string_view text, std::vector<int32_t>& out);

 private:
  static constexpr int kBucketBits = 17;
  static constexpr int kInline = 3;
  static constexpr size_t kBuckets = size_t{1} << kBucketBits, kProbes = 4;
  struct Slot {
    PieceKey key;             // length 0: empty
    int32_t tokens[kInline];  // count > kInline: tokens[0] is where they are in spilled_
    int32_t count;
  };
  struct alignas(64) Bucket {
    Slot slot[2];
  };
  struct LongSlot {
    uint64_t hash = 0;
    uint32_t key = 0, length = 0, tokens = 0, count = 0;
  };
  static constexpr size_t kLongSlots = size_t{1} << 16, kLongest = 512;
  static constexpr size_t kSpillLimit = size_t{1} << 20;

  void fresh(std::string_view piece, std::vector<int32_t>& tokens);
  const Slot& find_or_insert(size_t home, PieceKey key, std::string_view piece);
  void encode_long(std::string_view piece, std::vector<int32_t>& out);
  void clear();

  const Bpe& bpe_;
  const std::function<int32_t(std::string_view)>& whole_;
  Bucket* buckets_ = nullptr;
  std::vector<LongSlot> long_slots_;
  std::vector<char> long_keys_;
  std::vector<int32_t> spilled_, long_tokens_, scratch_;
};

}  // namespace stoker::tokenizer
