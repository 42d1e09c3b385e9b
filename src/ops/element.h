// ops/element.h
// Reads and writes one element of a tensor of either float type: for code whose clarity matters more than its
// speed.
#pragma once
#include "tensor/tensor_view.h"

namespace stoker::ops {

inline float get(const TensorView& t, int64_t i) {
  return t.dtype == Dtype::kF32 ? static_cast<const float*>(t.data)[i]
                                : to_float(static_cast<const Bf16*>(t.data)[i]);
}
inline void put(const TensorView& t, int64_t i, float value) {
  if (t.dtype == Dtype::kF32) static_cast<float*>(t.data)[i] = value;
  else static_cast<Bf16*>(t.data)[i] = to_bf16(value);
}

}  // namespace stoker::ops
