// data/tokenizer/encode_cache.h
// Piece -> tokens for the pieces of a text, most of which have been seen before. What one thread needs to encode: a
// table of short pieces (64-byte buckets of two; a full bucket spills into the next few, and only then is an entry replaced), a table of longer ones, buffers.
// A block of text is encoded in three steps: the tokens of known pieces with a placeholder (below zero) for each other one, all new pieces
// merged together (bpe.h, merge_keys), placeholders replaced. The table begins with the vocabulary's own words, which need no merging.
// The content never changes a result, only its speed. One thread at a time. Private to this room.
// Memory  at most `bytes`: two fifths of it a table on huge pages where the system has them, the rest grows with what is seen. More than
//         kMostBytes (a table of 16 MB) is not used, less than kLeastBytes neither
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/piece_key.h"
#include "data/tokenizer/split_batch.h"

namespace stoker::tokenizer {

// A short piece that is known to become this one token.
struct KnownPiece {
  PieceKey key;
  int32_t token;
};

class EncodeCache {
 public:
  // whole(piece): the token to use without merging, or -1. known: the likeliest first. All are referred to, not copied.
  EncodeCache(const Bpe& bpe, const std::function<int32_t(std::string_view)>& whole,
              std::span<const KnownPiece> known, size_t bytes);
  ~EncodeCache();
  EncodeCache(const EncodeCache&) = delete;

  // Appends the tokens of text, split by `find`.
  void encode(const PieceFinder& find, std::string_view text, std::vector<int32_t>& out);

  static constexpr size_t kMostBytes = size_t{40} << 20, kLeastBytes = kMostBytes / 64;

 private:
  static constexpr int kInline = 3;
  static constexpr size_t kProbes = 4;
  struct alignas(32) Slot {
    PieceKey key;             // length 0: empty
    int32_t tokens[kInline];  // count > kInline: tokens[0] is where they are in spilled_
    int32_t count;
  };
  struct alignas(32) LongSlot {
    uint64_t hash = 0;
    uint32_t key = 0, length = 0, tokens = 0, count = 0;
  };
  // A piece of the block that is no key. Its tokens are in long_tokens_, or (too long to be kept) in block_tokens_.
  struct LongPiece {
    std::string_view piece;
    uint64_t hash;
    bool kept;
    size_t begin, count;
  };
  static constexpr size_t kLongest = 512, kHugePage = size_t{2} << 20;
  static constexpr size_t kBlockPieces = 4096, kFirstLong = 4096;
  // Placeholders: kNew + i for new piece i of the block, kLong + i for long piece i, kEnd behind the last.
  static constexpr int32_t kNew = INT32_MIN, kLong = INT32_MIN / 2, kEnd = -1;

  void start();
  void clear();
  uint32_t home_of(PieceKey key) const;
  Slot* place(uint32_t home, PieceKey key) const;
  static void make_room(std::vector<int32_t>& out, size_t more);
  size_t encode_known(const PieceFinder& find, std::string_view text, size_t begin);
  const Slot& find_or_add(uint32_t home, PieceKey key, std::string_view piece);
  int32_t add_long(std::string_view piece);
  void merge_new();
  void merge_long();
  LongSlot& long_place(uint64_t hash, std::string_view piece);
  void grow_long();
  void forget_long();
  void append_block(std::vector<int32_t>& out);
  void end_block();

  const Bpe& bpe_;
  const std::function<int32_t(std::string_view)>& whole_;
  const uint32_t table_slots_;  // a power of two; slots 2 b and 2 b + 1 are bucket b
  const size_t most_long_, spill_limit_, long_key_limit_;
  const std::span<const KnownPiece> known_;
  Slot* slots_ = nullptr;
  std::vector<LongSlot> long_slots_;
  std::vector<char> long_keys_;
  std::vector<int32_t> spilled_, long_tokens_;
  size_t long_kept_ = 0;  // in long_slots_
  // Of the block at hand: room for the most there can be, and how much is used.
  std::vector<int32_t> tokens_, filled_, new_tokens_, new_counts_, block_tokens_;
  std::vector<PieceKey> new_keys_;
  std::vector<Slot*> new_slots_;
  std::vector<LongPiece> long_pieces_;
  size_t token_count_ = 0, new_count_ = 0, long_bytes_ = 0;
};

}  // namespace stoker::tokenizer
