// data/tokenizer/encode_cache.h
// Piece -> tokens for the pieces of a text, most of which have been seen before. What one thread needs to encode: a
// table of short pieces (64-byte buckets of two; a full bucket spills into the next few, and only then is an entry replaced), a table of longer ones, buffers.
// Pieces that are new are merged together at the end of a block of text (bpe.h, merge_keys), and their tokens put where they belong.
// The content never changes a result, only its speed. One thread at a time. Private to this room.
// Memory  at most `bytes`: two fifths of it a table on huge pages where the system has them, the rest grows with what is seen. More than
//         kMostBytes (a table of 16 MB) is not used, less than kLeastBytes neither
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
  EncodeCache(const Bpe& bpe, const std::function<int32_t(std::string_view)>& whole, size_t bytes);
  ~EncodeCache();
  EncodeCache(const EncodeCache&) = delete;

  // Appends the tokens of text, split by `find`.
  void encode(const PieceFinder& find, std::string_view text, std::vector<int32_t>& out);

  static constexpr size_t kMostBytes = size_t{40} << 20, kLeastBytes = kMostBytes / 64;

 private:
  static constexpr int kInline = 3;
  static constexpr size_t kProbes = 4;
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
  static constexpr size_t kLongest = 512, kHugePage = size_t{2} << 20;
  static constexpr size_t kBlockPieces = 32 * kPieceBatch;
  static constexpr int32_t kPending =
      INT32_MAX;  // count of a slot whose piece waits for the end of the block

  // Tokens that belong at tokens_ + at: of a long piece, or (where it is none) of a pending one.
  struct Gap {
    const char* piece;
    size_t number;  // bytes of the long piece, or which pending one
    uint32_t at;
  };

  size_t encode_block(const PieceFinder& find, std::string_view text, size_t begin,
                      std::vector<int32_t>& out);
  static void make_room(std::vector<int32_t>& out, size_t more);
  void fresh(std::string_view piece, std::vector<int32_t>& tokens);
  const Slot* find_or_add(size_t home, PieceKey key, std::string_view piece);
  void settle();
  void emit(const int32_t* end, std::vector<int32_t>& out);
  void encode_long(std::string_view piece, std::vector<int32_t>& out);
  void clear();

  const Bpe& bpe_;
  const std::function<int32_t(std::string_view)>& whole_;
  const size_t table_bytes_;  // a power of two
  Bucket* buckets_ = nullptr;
  const size_t bucket_mask_, long_mask_, spill_limit_, long_key_limit_;
  std::vector<LongSlot> long_slots_;
  std::vector<char> long_keys_;
  std::vector<int32_t> spilled_, long_tokens_, scratch_;
  // Of the block at hand: room for the most there can be, and how much is used.
  std::vector<int32_t> tokens_, filled_, pending_tokens_, pending_counts_;
  std::vector<Gap> gaps_;
  std::vector<PieceKey> pending_;
  std::vector<Slot*> pending_slots_;
  size_t gap_count_ = 0, pending_count_ = 0, settled_count_ = 0;
};

}  // namespace stoker::tokenizer
