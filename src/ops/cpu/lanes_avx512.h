// ops/cpu/lanes_avx512.h
// Sixteen floats. Included only by files compiled with AVX-512 (named *_avx512.cpp, *_avx512bf16.cpp);
// everything is in an anonymous namespace because the linker would merge an inline compiled for two
// instruction sets.
#pragma once
#include <immintrin.h>

#include "tensor/bf16.h"

namespace {

struct Lanes {
  static constexpr int kWidth = 16;
  __m512 v;

  static Lanes set(float x) { return {_mm512_set1_ps(x)}; }
  static Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes load(const stoker::Bf16* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Lanes load(const float* p, int n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  static Lanes load(const stoker::Bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(mask(n), p)); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(stoker::Bf16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow()); }
  void store(float* p, int n) const { _mm512_mask_storeu_ps(p, mask(n), v); }
  void store(stoker::Bf16* p, int n) const { _mm256_mask_storeu_epi16(p, mask(n), narrow()); }

  friend Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Lanes sqrt(Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
  static Lanes round(Lanes a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // x * 2^n for whole n; over- and underflow to infinity and zero
  static Lanes scale_by_power(Lanes x, Lanes n) { return {_mm512_scalef_ps(x.v, n.v)}; }
  float sum() const {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  float top() const { return _mm512_reduce_max_ps(v); }
  // Lane i keeps its value where lo <= i < hi, elsewhere `other`.
  Lanes keep(int lo, int hi, Lanes other) const {
    return {_mm512_mask_mov_ps(other.v, static_cast<__mmask16>(mask(hi) & ~mask(lo)), v)};
  }

  static __mmask16 mask(int n) {
    return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
  }

 private:
  static Lanes widen(__m256i half) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  }
  __m256i narrow() const {  // round to nearest even, NaN kept quiet: exactly to_bf16
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(r);
  }
};

}  // namespace
