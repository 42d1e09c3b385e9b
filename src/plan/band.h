// plan/band.h
// A number with what is not known of it: low and high enclose it, mid is the best single answer. low <= mid
// <= high for quantities that grow with their inputs; arithmetic takes the ends together, as if the errors
// all leaned one way, so a band is an outer bound and not a standard deviation.
#pragma once
#include <algorithm>

namespace stoker::plan {

template <typename Q>
struct Band {
  Q low{}, mid{}, high{};
  static constexpr Band exactly(Q value) { return {value, value, value}; }
  friend constexpr bool operator==(const Band&, const Band&) = default;
  friend constexpr Band operator+(Band a, Band b) { return {a.low + b.low, a.mid + b.mid, a.high + b.high}; }
  // The difference is widest when one end meets the other's opposite end.
  friend constexpr Band operator-(Band a, Band b) { return {a.low - b.high, a.mid - b.mid, a.high - b.low}; }
  friend constexpr Band operator*(Band a, double f) { return {a.low * f, a.mid * f, a.high * f}; }  // f >= 0
  friend constexpr Band operator*(double f, Band a) { return a * f; }
  friend constexpr Band operator/(Band a, double f) { return a * (1 / f); }
};

// Products and quotients of bands of non-negative quantities.
template <typename A, typename B>
constexpr auto product(Band<A> a, Band<B> b) {
  using R = decltype(a.low * b.low);
  return Band<R>{a.low * b.low, a.mid * b.mid, a.high * b.high};
}
template <typename A, typename B>
constexpr auto quotient(Band<A> a, Band<B> b) {
  using R = decltype(a.low / b.low);
  return Band<R>{a.low / b.high, a.mid / b.mid, a.high / b.low};
}
template <typename Q>
constexpr Band<Q> union_of(Band<Q> a, Band<Q> b) {
  return {std::min(a.low, b.low), (a.mid + b.mid) / 2, std::max(a.high, b.high)};
}

}  // namespace stoker::plan
