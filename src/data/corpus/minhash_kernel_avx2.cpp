#include <immintrin.h>

#include "data/corpus/minhash_kernel.h"

namespace stoker::corpus {
namespace {

// AVX2 compares signed only. Adding 2^63 flips the top bit, so with that folded into c a signed minimum is
// the unsigned one.
template <int kVectors>
void update_group(std::span<const uint64_t> shingles, const MinHashRows& rows, size_t first,
                  uint64_t* minima) {
  const __m256i flip = _mm256_set1_epi64x(static_cast<int64_t>(0x8000000000000000ull));
  __m256i a[kVectors], b[kVectors], c[kVectors], least[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const size_t at = first + 4 * v;
    a[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows.a + at));
    b[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows.b + at));
    c[v] = _mm256_xor_si256(flip, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows.c + at)));
    least[v] = _mm256_xor_si256(flip, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(minima + at)));
  }
  for (const uint64_t x : shingles) {
    const __m256i low = _mm256_set1_epi64x(static_cast<int64_t>(x));
    const __m256i high = _mm256_srli_epi64(low, 32);
    for (int v = 0; v < kVectors; ++v) {
      __m256i value = _mm256_add_epi64(_mm256_mul_epu32(a[v], low), _mm256_mul_epu32(b[v], high));
      value = _mm256_add_epi64(value, c[v]);
      least[v] = _mm256_blendv_epi8(least[v], value, _mm256_cmpgt_epi64(least[v], value));
    }
  }
  for (int v = 0; v < kVectors; ++v)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(minima + first + 4 * v), _mm256_xor_si256(flip, least[v]));
}

}  // namespace

void minhash_update_avx2(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima) {
  for (size_t first = 0; first < rows.count; first += 8) update_group<2>(shingles, rows, first, minima);
}

}  // namespace stoker::corpus
