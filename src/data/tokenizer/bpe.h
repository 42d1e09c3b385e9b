// data/tokenizer/bpe.h
// Byte-pair merging of one piece: bytes become tokens, then the adjacent pair of lowest rank is merged (leftmost first among
// equals) until no pair is in the table.
// Cost    pieces of up to 64 bytes: quadratic in a tiny array; longer ones O(n log n), so that no input is slow
// Errors  Data: the vocabulary has no token for a byte of the piece
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/tokenizer/definition.h"

namespace stoker::tokenizer {

class Bpe {
 public:
  // byte_tokens: token of each byte, -1 where the vocabulary has none. Ids are below 2^21 - 1, ranks below
  // 2^22 - 1 (Data).
  Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges);

  static constexpr size_t kShortPiece = 64;
  // Appends the piece's tokens to out.
  void merge(std::string_view piece, std::vector<int32_t>& out) const;

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  // A merge in 64 bits, so that the table of most vocabularies stays in the second-level cache: left, right, rank.
  static constexpr int kIdBits = 21, kRankBits = 22;
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  // Rank of the pair, kNone when there is no such merge.
  uint32_t find(int32_t left, int32_t right) const {
    const uint64_t key = pair_key(left, right);
    for (size_t i = home(key);; i = (i + 1) & mask_) {
      const uint64_t slot = slots_[i];
      if (slot >> kRankBits == key) return static_cast<uint32_t>(slot & ((1u << kRankBits) - 1));
      if (slot == kEmpty) return kNone;
    }
  }
  static uint64_t pair_key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << kIdBits | static_cast<uint32_t>(right);
  }
  size_t home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u) >> shift_; }
  size_t merge_short(std::string_view piece, int32_t* tokens) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& out) const;
  [[noreturn]] static void no_token(uint8_t byte);

  std::array<int32_t, 256> byte_tokens_;
  std::vector<uint32_t> byte_pairs_;  // rank of [left byte << 8 | right byte]: half of all lookups
  std::vector<int32_t> results_;      // by rank
  std::vector<uint64_t> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace stoker::tokenizer
