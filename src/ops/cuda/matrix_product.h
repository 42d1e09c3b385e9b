// ops/cuda/matrix_product.h
// c[m,n] = sum_k a[m,k] * b[k,n] (+ c) on row-major device memory, through cuBLASLt. The library (several
// hundred MB) is opened at the first product, so a program that never multiplies on a GPU never maps it.
// Numbers       sums in f32, no TF32; no in-place (atomic) split of k, so the same call gives the same bits
// Errors        Device: cuBLASLt not found, or it has no algorithm for the shape, or the launch failed
#pragma once
#include <map>

#include "ops/context.h"
#include "tensor/device_memory.h"

namespace stoker::ops::cuda {

struct ProductShape {
  int64_t m, n, k;
  bool a_transposed, b_transposed;  // a stored [k,m], b stored [n,k]
  bool add;
  Dtype in, out;
  int alignment;  // of the worst pointer, in bytes: algorithms depend on it
  auto operator<=>(const ProductShape&) const = default;
};

class ProductCache final : public Context::Cache {
 public:
  ProductCache();
  ~ProductCache() override;
  void run(Device device, Stream stream, ProductShape shape, const void* a, const void* b, void* c);

 private:
  struct Plan;
  const Plan& plan(const ProductShape& shape);
  void* handle_ = nullptr;
  DeviceBuffer workspace_;
  std::map<ProductShape, std::unique_ptr<Plan>> plans_;
};

}  // namespace stoker::ops::cuda
