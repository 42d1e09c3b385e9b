#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace stoker {
namespace {

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f).bits, 0x3f80);            // tie: to even
  EXPECT_EQ(to_bf16(1.0f + 0x1p-7f + 0x1p-8f).bits, 0x3f82);  // tie: to even, upwards
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f + 0x1p-20f).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  for (uint32_t bits = 0; bits < 0x7f80; ++bits)
    ASSERT_EQ(to_bf16(to_float(Bf16{static_cast<uint16_t>(bits)})).bits, bits);
}

TEST(Arena, PlansWhatItHandsOut) {
  Arena arena;
  auto walk = [&] { return std::pair{arena.take({3, 5}, Dtype::kBf16), arena.take({7}, Dtype::kF32)}; };
  EXPECT_FALSE(walk().first);
  const size_t planned = arena.bytes();
  EXPECT_EQ(planned, 128u);
  arena.commit();
  const auto [a, b] = walk();
  EXPECT_EQ(arena.bytes(), planned);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data) % Arena::kAlignment, 0u);
  EXPECT_EQ(b.as<float>()[6], 0.0f);
  EXPECT_THROW(a.as<float>(), Error);
  EXPECT_THROW(arena.take({1}, Dtype::kF32), Error);
}

TEST(TensorView, Slices) {
  float x[12];
  const TensorView v = view_of(x, {4, 3});
  EXPECT_EQ(v.slice_rows(1, 3).data, x + 3);
  EXPECT_EQ(v.slice_rows(1, 3).shape, (Shape{2, 3}));
  EXPECT_EQ(v.rows(), 4);
  EXPECT_THROW(v.slice_rows(3, 5), Error);
  EXPECT_THROW(v.reshaped({5}), Error);
}

}  // namespace
}  // namespace stoker
