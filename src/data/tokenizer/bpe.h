// data/tokenizer/bpe.h
// Byte-pair merging of one piece: bytes become tokens, then the adjacent pair of lowest rank is merged
// (leftmost first among equals) until no pair is in the table. Cost    pieces of up to 64 bytes: quadratic in
// a tiny array; longer ones O(n log n), so that no input is slow Errors  Data: the vocabulary has no token
// for a byte of the piece
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/tokenizer/definition.h"

namespace stoker::tokenizer {

class Bpe {
 public:
  // byte_tokens: token of each byte, -1 where the vocabulary has none.
  Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges);

  static constexpr size_t kShortPiece = 64;
  // Appends the piece's tokens to out.
  void merge(std::string_view piece, std::vector<int32_t>& out) const;

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  struct Found {
    uint32_t rank;
    int32_t id;
  };
  struct Slot {
    int32_t left = -1, right = -1;
    Found found{kNone, -1};
  };
  Found find(int32_t left, int32_t right) const {
    for (size_t i = home(left, right);; i = (i + 1) & mask_) {
      const Slot& s = slots_[i];
      if (s.left == left && s.right == right) return s.found;
      if (s.left < 0) return {kNone, -1};
    }
  }
  size_t home(int32_t left, int32_t right) const {
    const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    return (key * 0x9E3779B97F4A7C15u) >> shift_;
  }
  size_t merge_short(std::string_view piece, int32_t* tokens) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& out) const;
  [[noreturn]] static void no_token(uint8_t byte);

  std::array<int32_t, 256> byte_tokens_;
  bool short_ranks_ = true;        // ranks and a position fit into 32 bits
  std::vector<Found> byte_pairs_;  // [left byte << 8 | right byte]: half of all lookups
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace stoker::tokenizer
