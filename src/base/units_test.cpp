#include "base/units.h"

#include <gtest/gtest.h>

#include <type_traits>

namespace stoker {
namespace {

// A requires-expression is false exactly when the expression would not compile.
template <typename A, typename B>
concept Addable = requires(A a, B b) {
  a + b;
};
template <typename A, typename B>
concept Comparable = requires(A a, B b) {
  a < b;
};
template <typename A, typename B>
concept Assignable = requires(A a, B b) {
  a = b;
};

static_assert(Addable<Bytes, Bytes> && Comparable<Seconds, Seconds> && Assignable<Dollars, Dollars>);
static_assert(!Addable<Bytes, Seconds>, "a size plus a time must not compile");
static_assert(!Addable<Joules, Watts> && !Addable<Dollars, double> && !Addable<Flops, FlopsPerSecond>);
static_assert(!Comparable<Bytes, Tokens> && !Comparable<Seconds, double>);
static_assert(!Assignable<Seconds, Bytes> && !Assignable<Watts, Joules> && !Assignable<Dollars, double>);
static_assert(!std::is_convertible_v<double, Seconds> && !std::is_convertible_v<Seconds, double>);
static_assert(std::is_same_v<decltype(Bytes() / BytesPerSecond(1)), Seconds>);
static_assert(std::is_same_v<decltype(Watts() * Seconds()), Joules>);
static_assert(std::is_same_v<decltype(Joules() * DollarsPerJoule()), Dollars>);
static_assert(std::is_same_v<decltype(Flops() / FlopsPerSecond(1)), Seconds>);
static_assert(std::is_same_v<decltype(Bytes() / Bytes(1)), double>);

TEST(Units, ArithmeticKeepsValues) {
  EXPECT_DOUBLE_EQ((gigabytes(10) / gigabytes_per_second(4)).value(), 2.5);
  EXPECT_DOUBLE_EQ((Watts(700) * hours(2)).value(), kilowatt_hours(1.4).value());
  EXPECT_DOUBLE_EQ(gibibytes(3) / gibibytes(2), 1.5);
  EXPECT_DOUBLE_EQ((1.0 / Seconds(4) * Tokens(8)).value(), TokensPerSecond(2).value());
  EXPECT_DOUBLE_EQ(in_gibibytes(gibibytes(7) - gibibytes(2)), 5);
}

}  // namespace
}  // namespace stoker
