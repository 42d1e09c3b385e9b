// ops/cpu/dot_f32.h
// The Dot policy for f32 operands on any Lanes. Included after lanes_<isa>.h and lanes_math.h.
#pragma once

namespace {

struct Dot {
  using Element = float;
  static constexpr int kPack = 1;
  static constexpr int kTileLanes = Lanes::kWidth == 16 ? 4 : 2;  // 6 x 4 of 32 registers, 6 x 2 of 16

  template <int MR, int NR>
  static void tile(const float* a, int64_t lda, const float* b, int64_t k, float* c, int64_t ldc, bool add) {
    constexpr int W = Lanes::kWidth, kColumns = W * kTileLanes;
    Lanes sum[MR][NR];
    for (int m = 0; m < MR; ++m)
      for (int n = 0; n < NR; ++n) sum[m][n] = add ? Lanes::load(c + m * ldc + n * W) : Lanes::set(0);
    for (int64_t i = 0; i < k; ++i) {
      Lanes column[NR];
      for (int n = 0; n < NR; ++n) column[n] = Lanes::load(b + i * kColumns + n * W);
      for (int m = 0; m < MR; ++m) {
        const Lanes x = Lanes::set(a[m * lda + i]);
        for (int n = 0; n < NR; ++n) sum[m][n] = Lanes::fma(x, column[n], sum[m][n]);
      }
    }
    for (int m = 0; m < MR; ++m)
      for (int n = 0; n < NR; ++n) sum[m][n].store(c + m * ldc + n * W);
  }
  static void store_row(float* p, Lanes x) { x.store(p); }
  static void store_pair(float* panel, int64_t k, int64_t column, Lanes even, Lanes odd) {
    constexpr int kColumns = Lanes::kWidth * kTileLanes;
    even.store(panel + k * kColumns + column);
    odd.store(panel + (k + 1) * kColumns + column);
  }
};

}  // namespace
