// data/tokenizer/bpe.h
// Byte-pair merging of one piece: bytes become tokens, then the adjacent pair of lowest rank is merged (leftmost first among
// equals) until no pair is in the table.
// Cost    pieces of up to 252 bytes: quadratic in a tiny array; longer ones O(n log n), so that no input is slow
// Errors  Data: the vocabulary has no token for a byte of the piece
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "data/tokenizer/definition.h"
#include "data/tokenizer/merge_tables.h"
#include "data/tokenizer/pair_ranks.h"
#include "data/tokenizer/piece_key.h"

namespace stoker::tokenizer {

class Bpe {
 public:
  // byte_tokens: token of each byte, -1 where the vocabulary has none.
  Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges, Isa isa = cpu_isa());

  static constexpr size_t kShortPiece = 252;
  // Appends the piece's tokens to out.
  void merge(std::string_view piece, std::vector<int32_t>& out) const;

  // The tokens of many short pieces: those of keys[i] from tokens + i * kMaxKeyTokens on, counts[i] of them. With AVX-512 sixteen
  // pieces are merged side by side, pieces of similar length together: their loads then wait for memory together too.
  void merge_keys(const PieceKey* keys, size_t count, int32_t* tokens, int32_t* counts) const;

 private:
  static constexpr uint32_t kNone = PairRanks::kNone;
  size_t merge_short(std::string_view piece, int32_t* tokens) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& out) const;
  [[noreturn]] static void no_token(uint8_t byte);

  std::array<int32_t, 256> byte_tokens_;
  PairRanks ranks_;
  std::vector<uint32_t> byte_pairs_;  // rank of [left byte << 8 | right byte]: half of all lookups
  std::vector<int32_t> results_;      // by rank
  bool lanes_ = false;  // merge_lanes_avx512 can be used: the processor can, and every byte has a token
};

}  // namespace stoker::tokenizer
