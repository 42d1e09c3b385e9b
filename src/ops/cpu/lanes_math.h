// ops/cpu/lanes_math.h
// exp2, exp, sigmoid and tanh on Lanes. Included after lanes_<isa>.h, in the same anonymous namespace.
// exp2: |relative error| < 3e-7 (degree-6 Taylor polynomial of 2^f on [-0.5, 0.5]: remainder (0.5 ln 2)^7 /
// 7! = 1.2e-7, and rounding); NaN passes through; below -150 gives 0, above 128 infinity.
#pragma once

namespace {

inline Lanes exp2_lanes(Lanes x) {
  x = Lanes::max(
      Lanes::set(-200),
      Lanes::min(Lanes::set(200), x));  // the second operand wins for NaN in both: NaN goes through
  const Lanes n = Lanes::round(x), f = x - n;
  Lanes p = Lanes::set(1.5403530393381609e-4f);  // ln(2)^k / k!
  p = Lanes::fma(p, f, Lanes::set(1.3333558146428443e-3f));
  p = Lanes::fma(p, f, Lanes::set(9.6181291076284772e-3f));
  p = Lanes::fma(p, f, Lanes::set(5.5504108664821580e-2f));
  p = Lanes::fma(p, f, Lanes::set(2.4022650695910071e-1f));
  p = Lanes::fma(p, f, Lanes::set(6.9314718055994531e-1f));
  p = Lanes::fma(p, f, Lanes::set(1.0f));
  return Lanes::scale_by_power(p, n);
}

constexpr float kLog2E = 1.4426950408889634f;

inline Lanes exp_lanes(Lanes x) { return exp2_lanes(x * Lanes::set(kLog2E)); }
inline Lanes sigmoid_lanes(Lanes x) {
  return Lanes::set(1) / (Lanes::set(1) + exp2_lanes(x * Lanes::set(-kLog2E)));
}
inline Lanes tanh_lanes(Lanes x) {  // 2 sigmoid(2x) - 1: absolute error < 3e-7, which is what GELU needs
  return Lanes::fma(Lanes::set(2), sigmoid_lanes(x * Lanes::set(2)), Lanes::set(-1));
}

}  // namespace
