// data/tokenizer/merge_tables.h
// Short pieces merged side by side, one in each lane of a vector. Private to this room.
#pragma once
#include <cstddef>
#include <cstdint>

#include "data/tokenizer/pair_ranks.h"
#include "data/tokenizer/piece_key.h"

namespace stoker::tokenizer {

// What Bpe has in memory, as plain pointers.
struct MergeTables {
  const int32_t* byte_tokens;  // of each byte; none is missing
  const uint32_t* byte_pairs;  // rank of [left byte << 8 | right byte]
  const int32_t* results;      // by rank
  const PairRanks* ranks;
};

inline constexpr size_t kLanes = 16, kMaxKeyTokens = 16;  // a key's bytes, and one to spare

// keys[i] -> tokens + i * kMaxKeyTokens, counts[i]. Fastest where neighbours are of similar length.
void merge_lanes_avx512(const MergeTables& tables, const PieceKey* keys, size_t count, int32_t* tokens,
                        int32_t* counts);

}  // namespace stoker::tokenizer
