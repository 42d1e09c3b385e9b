#include <immintrin.h>

#include "data/corpus/minhash_kernel.h"

namespace stoker::corpus {
namespace {

// Seven vectors of a, b, c and minima fill 28 of the 32 registers, and 112 permutations are two such groups.
template <int kVectors>
void update_group(std::span<const uint64_t> shingles, const MinHashRows& rows, size_t first,
                  uint64_t* minima) {
  __m512i a[kVectors], b[kVectors], c[kVectors], least[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    a[v] = _mm512_loadu_si512(rows.a + first + 8 * v);
    b[v] = _mm512_loadu_si512(rows.b + first + 8 * v);
    c[v] = _mm512_loadu_si512(rows.c + first + 8 * v);
    least[v] = _mm512_loadu_si512(minima + first + 8 * v);
  }
  for (const uint64_t x : shingles) {
    const __m512i low = _mm512_set1_epi64(static_cast<int64_t>(x));
    const __m512i high = _mm512_set1_epi64(static_cast<int64_t>(x >> 32));
    for (int v = 0; v < kVectors; ++v) {
      __m512i value = _mm512_add_epi64(_mm512_mul_epu32(a[v], low), c[v]);
      value = _mm512_add_epi64(value, _mm512_mul_epu32(b[v], high));
      least[v] = _mm512_min_epu64(least[v], value);
    }
  }
  for (int v = 0; v < kVectors; ++v) _mm512_storeu_si512(minima + first + 8 * v, least[v]);
}

}  // namespace

void minhash_update_avx512(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima) {
  size_t first = 0;
  for (; first + 56 <= rows.count; first += 56) update_group<7>(shingles, rows, first, minima);
  for (; first + 16 <= rows.count; first += 16) update_group<2>(shingles, rows, first, minima);
  for (; first < rows.count; first += 8) update_group<1>(shingles, rows, first, minima);
}

}  // namespace stoker::corpus
