// tensor/tensor_view.h
// A typed window on memory that somebody else owns: pointer, shape, dtype, device. Always contiguous,
// row-major, last dimension fastest. Copying a view copies no data. The owner (Buffer, mmap'ed file) must
// outlive it.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "tensor/bf16.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace stoker {

class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i < 0 ? rank_ + i : i)]; }
  int64_t count() const;  // product; 1 for rank 0
  std::vector<int64_t> dims() const { return {dims_.begin(), dims_.begin() + rank_}; }
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);  // "[4, 1024, 768]"

template <typename T>
constexpr Dtype dtype_of();
template <>
constexpr Dtype dtype_of<float>() {
  return Dtype::kF32;
}
template <>
constexpr Dtype dtype_of<Bf16>() {
  return Dtype::kBf16;
}
template <>
constexpr Dtype dtype_of<double>() {
  return Dtype::kF64;
}
template <>
constexpr Dtype dtype_of<int32_t>() {
  return Dtype::kI32;
}
template <>
constexpr Dtype dtype_of<int64_t>() {
  return Dtype::kI64;
}
template <>
constexpr Dtype dtype_of<uint8_t>() {
  return Dtype::kU8;
}

struct TensorView {
  void* data = nullptr;
  Shape shape;
  Dtype dtype = Dtype::kF32;
  Device device;

  explicit operator bool() const { return data != nullptr; }
  int64_t count() const { return shape.count(); }
  size_t bytes() const { return static_cast<size_t>(count()) * dtype_size(dtype); }
  std::span<std::byte> byte_span() const { return {static_cast<std::byte*>(data), bytes()}; }
  int64_t rows() const { return shape.rank() ? count() / shape[-1] : 1; }  // all but the last dimension
  int64_t columns() const { return shape[-1]; }

  template <typename T>
  T* as() const {
    STOKER_CHECK(dtype == dtype_of<T>(), "tensor is {}", to_string(dtype));
    return static_cast<T*>(data);
  }
  TensorView reshaped(Shape to) const;                      // same count
  TensorView slice_rows(int64_t begin, int64_t end) const;  // of the first dimension
};

template <typename T>
TensorView view_of(T* data, Shape shape) {
  return {const_cast<void*>(static_cast<const void*>(data)), shape, dtype_of<T>(), {}};
}

struct NamedTensor {
  std::string name;
  TensorView tensor;
};

}  // namespace stoker
