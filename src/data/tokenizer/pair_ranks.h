// data/tokenizer/pair_ranks.h
// Rank of a merge by its two tokens. Hash and displace: every pair has one place, so a lookup is one load of a number that
// moves the pair, one of its slot and one comparison, without a loop or a branch that could be guessed wrong.
// Memory  16 to 32 bytes a merge and 1 to 2 for the moves
// Errors  Data: ids from 2^21 - 1 or ranks from 2^22 - 1 on. A pair listed twice has its last rank, as in the reference
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "data/tokenizer/definition.h"

namespace stoker::tokenizer {

class PairRanks {
 public:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  static constexpr int kIdBits = 21, kRankBits = 22;

  explicit PairRanks(const std::vector<Merge>& merges);

  // kNone when there is no such merge.
  uint32_t find(int32_t left, int32_t right) const {
    const auto l = static_cast<uint32_t>(left), r = static_cast<uint32_t>(right);
    const uint64_t slot = slots_[place(l, r, moves_[bucket(l, r)])];
    return slot >> kRankBits == key(l, r) ? static_cast<uint32_t>(slot) & kRankMask : kNone;
  }

  // For code that looks up many at once; the formulas are bucket(), place() and key() below.
  static constexpr uint32_t kRankMask = (1u << kRankBits) - 1, kSpread = 0x9E3779B1;
  const uint64_t* slots() const { return slots_.data(); }
  const uint32_t* moves() const { return moves_.data(); }
  const std::array<uint32_t, 4>& factors() const { return factors_; }
  int slot_shift() const { return slot_shift_; }
  int move_shift() const { return move_shift_; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(uint32_t l, uint32_t r) { return uint64_t{l} << kIdBits | r; }
  uint32_t bucket(uint32_t l, uint32_t r) const { return (l * factors_[0] + r * factors_[1]) >> move_shift_; }
  uint32_t place(uint32_t l, uint32_t r, uint32_t move) const {
    return (((l * factors_[2] + r * factors_[3]) ^ move) * kSpread) >> slot_shift_;
  }
  bool fill(const std::vector<uint64_t>& slots, int bits, uint64_t seed);

  // A merge in 64 bits, so that the table of most vocabularies stays in the second-level cache: left, right, rank.
  std::vector<uint64_t> slots_;
  std::vector<uint32_t> moves_;
  std::array<uint32_t, 4> factors_{};
  int slot_shift_ = 0, move_shift_ = 0;
};

}  // namespace stoker::tokenizer
