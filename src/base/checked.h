// base/checked.h
// Arithmetic on sizes that came from a file or a user: overflow is a Data error, never a wrapped number.
#pragma once
#include <cstdint>
#include <limits>
#include <string_view>

#include "base/error.h"

namespace stoker {

template <typename T>
T checked_mul(T a, T b, std::string_view what) {
  T out;
  if (__builtin_mul_overflow(a, b, &out))
    fail(ErrorKind::kData, "{}: {} x {} does not fit in {} bits", what, a, b, sizeof(T) * 8);
  return out;
}

template <typename T>
T checked_add(T a, T b, std::string_view what) {
  T out;
  if (__builtin_add_overflow(a, b, &out))
    fail(ErrorKind::kData, "{}: {} + {} does not fit in {} bits", what, a, b, sizeof(T) * 8);
  return out;
}

template <typename To, typename From>
To checked_cast(From value, std::string_view what) {
  if (!std::in_range<To>(value))
    fail(ErrorKind::kData, "{}: {} is out of range for a {}-bit field", what, value, sizeof(To) * 8);
  return static_cast<To>(value);
}

}  // namespace stoker
