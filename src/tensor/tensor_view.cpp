#include "tensor/tensor_view.h"

#include <fmt/ranges.h>

#include "base/checked.h"

namespace stoker {

size_t dtype_size(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
    case Dtype::kI32:
      return 4;
    case Dtype::kBf16:
    case Dtype::kF16:
      return 2;
    case Dtype::kF64:
    case Dtype::kI64:
      return 8;
    case Dtype::kU8:
      return 1;
  }
  return 0;
}

std::string_view to_string(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return "F32";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kF16:
      return "F16";
    case Dtype::kF64:
      return "F64";
    case Dtype::kI32:
      return "I32";
    case Dtype::kI64:
      return "I64";
    case Dtype::kU8:
      return "U8";
  }
  return "?";
}

Dtype dtype_from_string(std::string_view name) {
  for (Dtype d : {Dtype::kF32, Dtype::kBf16, Dtype::kF16, Dtype::kF64, Dtype::kI32, Dtype::kI64, Dtype::kU8})
    if (to_string(d) == name) return d;
  fail(ErrorKind::kData, "element type \"{}\" is not known: expected F32, BF16, F16, F64, I32, I64 or U8",
       name);
}

std::string to_string(Device device) {
  return device.kind == DeviceKind::kCpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  STOKER_CHECK(dims.size() <= kMaxRank, "rank {} is above {}", dims.size(), kMaxRank);
  std::copy(dims.begin(), dims.end(), dims_.begin());
}
int64_t Shape::count() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n = checked_mul(n, dims_[static_cast<size_t>(i)], "tensor size");
  return n;
}
std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape.dims(), ", ")); }

TensorView TensorView::reshaped(Shape to) const {
  STOKER_CHECK(to.count() == count(), "{} cannot be seen as {}", to_string(shape), to_string(to));
  TensorView v = *this;
  v.shape = to;
  return v;
}

TensorView TensorView::slice_rows(int64_t begin, int64_t end) const {
  STOKER_CHECK(shape.rank() >= 1 && 0 <= begin && begin <= end && end <= shape[0], "rows {}..{} of {}", begin,
               end, to_string(shape));
  std::vector<int64_t> dims = shape.dims();
  const int64_t row = shape[0] ? count() / shape[0] : 0;
  dims[0] = end - begin;
  TensorView v = *this;
  v.shape = Shape(dims);
  v.data = static_cast<char*>(data) + static_cast<size_t>(begin * row) * dtype_size(dtype);
  return v;
}

}  // namespace stoker
