// ops/cpu/dot_avx512bf16.h
// The Dot policy for pairs of bf16 (vdpbf16ps: two products a lane, summed in f32). Included after
// lanes_avx512.h and lanes_math.h.
#pragma once
#include <cstring>

namespace {

struct Dot {
  using Element = stoker::Bf16;
  static constexpr int kPack = 2;
  static constexpr int kTileLanes = 4;

  template <int MR, int NR>
  static void tile(const Element* a, int64_t lda, const Element* b, int64_t k, float* c, int64_t ldc,
                   bool add) {
    __m512 sum[MR][NR];
    for (int m = 0; m < MR; ++m)
      for (int n = 0; n < NR; ++n)
        sum[m][n] = add ? _mm512_loadu_ps(c + m * ldc + n * 16) : _mm512_setzero_ps();
    const char* panel = reinterpret_cast<const char*>(b);
    for (int64_t i = 0; i < k / 2; ++i, panel += 4 * 64) {
      __m512bh column[NR];
      for (int n = 0; n < NR; ++n) column[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + 64 * n));
      for (int m = 0; m < MR; ++m) {
        int pair;
        std::memcpy(&pair, a + m * lda + 2 * i, sizeof pair);
        const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
        for (int n = 0; n < NR; ++n) sum[m][n] = _mm512_dpbf16_ps(sum[m][n], x, column[n]);
      }
    }
    for (int m = 0; m < MR; ++m)
      for (int n = 0; n < NR; ++n) _mm512_storeu_ps(c + m * ldc + n * 16, sum[m][n]);
  }
  static void store_row(Element* p, Lanes x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), round(x)); }
  static void store_pair(Element* panel, int64_t k, int64_t column, Lanes even, Lanes odd) {
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(round(odd)), 16);
    _mm512_storeu_si512(panel + k * 64 + column * 2,
                        _mm512_or_si512(_mm512_cvtepu16_epi32(round(even)), high));
  }

 private:
  static __m256i round(Lanes x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v)); }
};

}  // namespace
