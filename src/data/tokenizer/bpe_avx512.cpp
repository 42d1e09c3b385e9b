// g++ 12 warns about its own headers: values that they leave undefined on purpose.
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "data/tokenizer/merge_tables.h"

namespace stoker::tokenizer {
namespace {

constexpr int kNone = -1;
using Lanes = __m512i;  // sixteen 32-bit values

inline Lanes all(int value) { return _mm512_set1_epi32(value); }
inline Lanes all(uint32_t value) { return _mm512_set1_epi32(static_cast<int>(value)); }
// Where the only (or the highest) bit of a value below 2^16 is: the exponent of it as a float.
inline Lanes bit_position(Lanes v) {
  return _mm512_sub_epi32(_mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(v)), 23), all(127));
}
inline Lanes lowest_bit(Lanes v) { return _mm512_and_si512(v, _mm512_sub_epi32(_mm512_setzero_si512(), v)); }

// PairRanks::find in the lanes of `wanted`; kNone elsewhere.
inline Lanes find(const PairRanks& t, __mmask16 wanted, Lanes left, Lanes right) {
  const auto& f = t.factors();
  const auto mix = [&](uint32_t a, uint32_t b) {
    return _mm512_add_epi32(_mm512_mullo_epi32(left, all(a)), _mm512_mullo_epi32(right, all(b)));
  };
  const Lanes bucket = _mm512_srl_epi32(mix(f[0], f[1]), _mm_cvtsi32_si128(t.move_shift()));
  const Lanes move = _mm512_i32gather_epi32(bucket, t.moves(), 4);
  const Lanes place =
      _mm512_srl_epi32(_mm512_mullo_epi32(_mm512_xor_si512(mix(f[2], f[3]), move), all(PairRanks::kSpread)),
                       _mm_cvtsi32_si128(t.slot_shift()));
  const auto half = [&](__m256i l, __m256i r, __m256i at, __mmask8& same) {
    const __m512i slot = _mm512_i32gather_epi64(at, t.slots(), 8);
    const __m512i key = _mm512_or_si512(_mm512_slli_epi64(_mm512_cvtepu32_epi64(l), PairRanks::kIdBits),
                                        _mm512_cvtepu32_epi64(r));
    same = _mm512_cmpeq_epi64_mask(_mm512_srli_epi64(slot, PairRanks::kRankBits), key);
    return _mm512_cvtepi64_epi32(_mm512_and_si512(slot, _mm512_set1_epi64(PairRanks::kRankMask)));
  };
  const auto low = [](Lanes v) { return _mm512_castsi512_si256(v); };
  const auto high = [](Lanes v) { return _mm512_extracti64x4_epi64(v, 1); };
  __mmask8 same_low = 0, same_high = 0;
  const __m256i rank_low = half(low(left), low(right), low(place), same_low);
  const __m256i rank_high = half(high(left), high(right), high(place), same_high);
  const Lanes ranks = _mm512_inserti64x4(_mm512_castsi256_si512(rank_low), rank_high, 1);
  const auto same = static_cast<__mmask16>(wanted & (same_low | same_high << 8));
  return _mm512_mask_mov_epi32(all(kNone), same, ranks);
}

constexpr int kPositionBits = 4;

// As merge_short of bpe.cpp: of each position the rank of the pair that starts there, above the position in 4 bits; the
// least of a lane is its next merge. Nothing is moved: a lane's living positions are the bits of `alive`.
template <size_t kRows>  // bytes of the longest
void merge_group(const MergeTables& t, const PieceKey* keys, size_t count, int32_t* out, int32_t* counts) {
  alignas(64) int32_t tokens[kRows][kLanes];
  alignas(64) uint32_t first[kRows][kLanes], living[kLanes];
  std::memset(first, 0xFF, sizeof first);
  for (size_t l = 0; l < kLanes; ++l) {
    uint8_t bytes[sizeof(PieceKey)] = {};
    if (l < count) std::memcpy(bytes, keys + l, sizeof bytes);
    const size_t length = bytes[kMaxKeyBytes];
    living[l] = (1u << length) - 1;
    for (size_t p = 0; p < length; ++p) tokens[p][l] = t.byte_tokens[bytes[p]];
    for (size_t p = 0; p + 1 < length; ++p)
      first[p][l] =
          t.byte_pairs[size_t{bytes[p]} << 8 | bytes[p + 1]] << kPositionBits | static_cast<uint32_t>(p);
  }
  Lanes order[kRows], alive = _mm512_load_si512(living);
  for (size_t p = 0; p < kRows; ++p) order[p] = _mm512_load_si512(first[p]);
  const Lanes lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto token_at = [&](Lanes position) {
    return _mm512_add_epi32(_mm512_slli_epi32(position, 4), lane);
  };
  const auto ordered = [](Lanes rank, Lanes position) {
    return _mm512_or_si512(_mm512_slli_epi32(rank, kPositionBits), position);
  };
  for (;;) {
    Lanes best = order[0];
    for (size_t p = 1; p < kRows; ++p) best = _mm512_min_epu32(best, order[p]);
    // No rank has the highest bits, so what has them is no pair.
    const __mmask16 active = _mm512_cmplt_epu32_mask(best, all(1 << (PairRanks::kRankBits + kPositionBits)));
    if (!active) break;
    const Lanes at = _mm512_and_si512(best, all((1 << kPositionBits) - 1));
    const Lanes merged =
        _mm512_mask_i32gather_epi32(all(0), active, _mm512_srli_epi32(best, kPositionBits), t.results, 4);
    const Lanes behind = _mm512_and_si512(alive, _mm512_sllv_epi32(all(-2), at)), gone = lowest_bit(behind);
    const Lanes further = _mm512_xor_si512(behind, gone);
    const Lanes in_front = _mm512_andnot_si512(_mm512_sllv_epi32(all(-1), at), alive);
    const __mmask16 has_after = _mm512_mask_test_epi32_mask(active, further, further);
    const __mmask16 has_before = _mm512_mask_test_epi32_mask(active, in_front, in_front);
    const Lanes after = bit_position(lowest_bit(further)), before = bit_position(in_front);
    const Lanes gone_at = bit_position(gone);
    const Lanes right = _mm512_mask_i32gather_epi32(all(0), has_after, token_at(after), tokens, 4);
    const Lanes left = _mm512_mask_i32gather_epi32(all(0), has_before, token_at(before), tokens, 4);
    _mm512_mask_i32scatter_epi32(tokens, active, token_at(at), merged, 4);
    alive = _mm512_mask_andnot_epi32(alive, active, gone, alive);
    const Lanes from_at = ordered(find(*t.ranks, has_after, merged, right), at);
    const Lanes from_before = ordered(find(*t.ranks, has_before, left, merged), before);
#pragma GCC unroll 15
    for (size_t p = 0; p < kRows; ++p) {
      const Lanes here = all(static_cast<int>(p));
      order[p] = _mm512_mask_mov_epi32(order[p], _mm512_mask_cmpeq_epi32_mask(active, at, here), from_at);
      order[p] = _mm512_mask_mov_epi32(order[p], _mm512_mask_cmpeq_epi32_mask(has_before, before, here),
                                       from_before);
      order[p] =
          _mm512_mask_mov_epi32(order[p], _mm512_mask_cmpeq_epi32_mask(active, gone_at, here), all(kNone));
    }
  }
  _mm512_store_si512(living, alive);
  for (size_t l = 0; l < count; ++l) {
    int32_t* to = out + l * kMaxKeyTokens;
    for (uint32_t rest = living[l]; rest; rest &= rest - 1) *to++ = tokens[__builtin_ctz(rest)][l];
    counts[l] = static_cast<int32_t>(to - (out + l * kMaxKeyTokens));
  }
}

}  // namespace

void merge_lanes_avx512(const MergeTables& t, const PieceKey* keys, size_t count, int32_t* tokens,
                        int32_t* counts) {
  for (size_t done = 0; done < count; done += kLanes) {
    const size_t n = std::min(kLanes, count - done);
    size_t longest = 0;
    for (size_t i = done; i < done + n; ++i) longest = std::max(longest, key_length(keys[i]));
    const auto merge = longest <= 6    ? merge_group<6>
                       : longest <= 10 ? merge_group<10>
                                       : merge_group<kMaxKeyBytes>;
    merge(t, keys + done, n, tokens + done * kMaxKeyTokens, counts + done);
  }
}

}  // namespace stoker::tokenizer
