#include "data/tokenizer/pair_ranks.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/random.h"

namespace stoker::tokenizer {

PairRanks::PairRanks(const std::vector<Merge>& merges) {
  std::vector<uint64_t> slots;
  slots.reserve(merges.size());
  for (const Merge& m : merges) {
    if (m.rank >= kRankMask)
      fail(ErrorKind::kData, "a merge has rank {}: at most {} merges are supported", m.rank, kRankMask);
    if (m.left < 0 || m.right < 0 || std::max(m.left, m.right) >= (1 << kIdBits) - 1)
      fail(ErrorKind::kData, "a merge joins tokens {} and {}: expected ids from 0 to {}", m.left, m.right,
           (1 << kIdBits) - 2);
    slots.push_back(key(static_cast<uint32_t>(m.left), static_cast<uint32_t>(m.right)) << kRankBits | m.rank);
  }
  // Of equal pairs the last listed: a stable sort by pair, backwards.
  std::reverse(slots.begin(), slots.end());
  std::stable_sort(slots.begin(), slots.end(),
                   [](uint64_t a, uint64_t b) { return a >> kRankBits < b >> kRankBits; });
  slots.erase(std::unique(slots.begin(), slots.end(),
                          [](uint64_t a, uint64_t b) { return a >> kRankBits == b >> kRankBits; }),
              slots.end());
  const int bits = std::bit_width(std::max<size_t>(8, slots.size()) * 2 - 1);
  // One seed in many fails: two pairs of a bucket that no move parts.
  for (uint64_t seed = 0; !fill(slots, bits, seed); ++seed)
    STOKER_CHECK(seed < 64, "no place for {} merges", slots.size());
}

// Buckets from the fullest to the emptiest: each takes the first move that brings all its pairs to free places.
bool PairRanks::fill(const std::vector<uint64_t>& slots, int bits, uint64_t seed) {
  constexpr size_t kFullest = 48;
  constexpr uint32_t kMostMoves = 1 << 16;
  factors_ = philox({seed, 0}, 0);
  for (uint32_t& factor : factors_) factor |= 1;
  const int move_bits = bits - 3;
  slot_shift_ = 32 - bits;
  move_shift_ = 32 - move_bits;
  slots_.assign(size_t{1} << bits, kEmpty);
  moves_.assign(size_t{1} << move_bits, 0);

  const auto left = [](uint64_t slot) { return static_cast<uint32_t>(slot >> (kRankBits + kIdBits)); };
  const auto right = [](uint64_t slot) {
    return static_cast<uint32_t>(slot >> kRankBits) & ((1u << kIdBits) - 1);
  };
  std::vector<std::vector<uint64_t>> buckets(moves_.size());
  size_t fullest = 0;
  for (const uint64_t slot : slots) {
    auto& b = buckets[bucket(left(slot), right(slot))];
    b.push_back(slot);
    fullest = std::max(fullest, b.size());
  }
  if (fullest > kFullest) return false;
  for (size_t size = fullest; size > 0; --size)
    for (size_t b = 0; b < buckets.size(); ++b) {
      if (buckets[b].size() != size) continue;
      uint32_t places[kFullest];
      const auto fits = [&](uint32_t move) {
        for (size_t i = 0; i < size; ++i) {
          const uint64_t slot = buckets[b][i];
          places[i] = place(left(slot), right(slot), move);
          if (slots_[places[i]] != kEmpty || std::find(places, places + i, places[i]) != places + i)
            return false;
        }
        return true;
      };
      uint32_t turn = 0;
      while (turn < kMostMoves && !fits(turn * kSpread)) ++turn;
      if (turn == kMostMoves) return false;
      moves_[b] = turn * kSpread;
      for (size_t i = 0; i < size; ++i) slots_[places[i]] = buckets[b][i];
    }
  return true;
}

}  // namespace stoker::tokenizer
