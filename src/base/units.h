// base/units.h
// Quantities that carry their unit, so that seconds cannot be added to bytes: the wrong sum does not compile
// (base/units_test.cpp proves it). A product or quotient has the product's or quotient's unit: Bytes /
// BytesPerSecond is Seconds, and a ratio of equal units is a plain double.
// Numbers     doubles in SI base units (bytes, seconds, floating-point operations, joules, dollars, tokens).
// Cost        none: one double, everything constexpr.
#pragma once
#include <compare>

namespace stoker {

template <int Byte, int Second, int Flop, int Joule, int Dollar, int Token>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(double value) : value_(value) {}
  constexpr double value() const { return value_; }

  constexpr Quantity& operator+=(Quantity o) { return value_ += o.value_, *this; }
  constexpr Quantity& operator-=(Quantity o) { return value_ -= o.value_, *this; }
  constexpr Quantity& operator*=(double f) { return value_ *= f, *this; }
  constexpr Quantity& operator/=(double f) { return value_ /= f, *this; }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return a += b; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return a -= b; }
  friend constexpr Quantity operator-(Quantity a) { return Quantity(-a.value_); }
  friend constexpr Quantity operator*(Quantity a, double f) { return a *= f; }
  friend constexpr Quantity operator*(double f, Quantity a) { return a *= f; }
  friend constexpr Quantity operator/(Quantity a, double f) { return a /= f; }
  friend constexpr auto operator<=>(Quantity, Quantity) = default;

 private:
  double value_ = 0;
};

namespace units_detail {
template <int B, int S, int F, int J, int D, int T>
constexpr auto make(double v) {
  if constexpr (B == 0 && S == 0 && F == 0 && J == 0 && D == 0 && T == 0) return v;
  else return Quantity<B, S, F, J, D, T>(v);
}
}  // namespace units_detail

template <int B, int S, int F, int J, int D, int T, int B2, int S2, int F2, int J2, int D2, int T2>
constexpr auto operator*(Quantity<B, S, F, J, D, T> a, Quantity<B2, S2, F2, J2, D2, T2> b) {
  return units_detail::make<B + B2, S + S2, F + F2, J + J2, D + D2, T + T2>(a.value() * b.value());
}
template <int B, int S, int F, int J, int D, int T, int B2, int S2, int F2, int J2, int D2, int T2>
constexpr auto operator/(Quantity<B, S, F, J, D, T> a, Quantity<B2, S2, F2, J2, D2, T2> b) {
  return units_detail::make<B - B2, S - S2, F - F2, J - J2, D - D2, T - T2>(a.value() / b.value());
}
template <int B, int S, int F, int J, int D, int T>
constexpr auto operator/(double a, Quantity<B, S, F, J, D, T> b) {
  return units_detail::make<-B, -S, -F, -J, -D, -T>(a / b.value());
}

using Bytes = Quantity<1, 0, 0, 0, 0, 0>;
using Seconds = Quantity<0, 1, 0, 0, 0, 0>;
using Flops = Quantity<0, 0, 1, 0, 0, 0>;  // a count of operations, not a rate
using Joules = Quantity<0, 0, 0, 1, 0, 0>;
using Dollars = Quantity<0, 0, 0, 0, 1, 0>;
using Tokens = Quantity<0, 0, 0, 0, 0, 1>;
using BytesPerSecond = Quantity<1, -1, 0, 0, 0, 0>;
using FlopsPerSecond = Quantity<0, -1, 1, 0, 0, 0>;
using TokensPerSecond = Quantity<0, -1, 0, 0, 0, 1>;
using Watts = Quantity<0, -1, 0, 1, 0, 0>;
using DollarsPerSecond = Quantity<0, -1, 0, 0, 1, 0>;
using DollarsPerJoule = Quantity<0, 0, 0, -1, 1, 0>;

constexpr Bytes gibibytes(double v) { return Bytes(v * 1073741824.0); }
constexpr Bytes gigabytes(double v) { return Bytes(v * 1e9); }
constexpr BytesPerSecond gigabytes_per_second(double v) { return BytesPerSecond(v * 1e9); }
constexpr FlopsPerSecond teraflops(double v) { return FlopsPerSecond(v * 1e12); }
constexpr Seconds hours(double v) { return Seconds(v * 3600); }
constexpr Joules kilowatt_hours(double v) { return Joules(v * 3.6e6); }
constexpr double in_gibibytes(Bytes b) { return b.value() / 1073741824.0; }

}  // namespace stoker
