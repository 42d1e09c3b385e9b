#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tensor/buffer.h"
#include "tensor/device_memory.h"
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

// One body for every device: what goes there comes back, and memory starts as zeros.
void round_trip(Device device) {
  float numbers[3] = {1.5f, -2, 3};
  DeviceBuffer memory(device, sizeof numbers);
  const TensorView there{memory.data(), Shape{3}, Dtype::kF32, device};
  float back[3] = {7, 7, 7};
  copy_tensor(there, view_of(back, Shape{3}));
  synchronize(device);
  EXPECT_EQ(back[0], 0);
  EXPECT_EQ(back[2], 0);
  copy_tensor(view_of(numbers, Shape{3}), there);
  DeviceBuffer moved = std::move(memory);
  EXPECT_EQ(moved.data(), there.data);
  EXPECT_EQ(memory.data(), nullptr);
  copy_tensor(there, view_of(back, Shape{3}));
  synchronize(device);
  EXPECT_EQ(back[1], -2);
  EXPECT_FALSE(device_name(device).empty());
}

TEST(DeviceMemory, RoundTripsOnTheCpu) {
  EXPECT_EQ(why_unusable(DeviceKind::kCpu), "");
  EXPECT_EQ(device_count(DeviceKind::kCpu), 1);
  round_trip({});
}

TEST(DeviceMemory, RoundTripsOnAGpuOrSaysWhyNot) {
  const Device gpu{DeviceKind::kCuda, 0};
  const std::string why = why_unusable(gpu.kind);
  EXPECT_EQ(why.empty(), device_count(gpu.kind) > 0);
  if (why.empty()) return round_trip(gpu);
  try {
    DeviceBuffer memory(gpu, 16);
    FAIL() << "got memory of a device that is not there";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kDevice);
  }
  GTEST_SKIP() << "not on a GPU: " << why;
}

}  // namespace
}  // namespace stoker
