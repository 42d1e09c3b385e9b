#include "ops/cpu/rowwise.h"

#include <cstring>

namespace stoker::ops::cpu {

const VectorTable* best_table() {
  if (cpu_has(Isa::kAvx512)) return &vector_avx512();
  if (cpu_has(Isa::kAvx2)) return &vector_avx2();
  return nullptr;
}

void fold(const VectorTable& table, const float* partial, int64_t rows, int64_t stride, int64_t offset,
          const TensorView& y) {
  parallel_ranges(y.count(), [&](int64_t begin, int64_t end, int) {
    for (int64_t b = 0; b < blocks(rows, kRowBlock); ++b)
      table.add(y.as<float>() + begin, partial + b * stride + offset + begin, end - begin);
  });
}

void bias_gradient(Context& context, const LinearBackwardWeight& a) {
  if (a.accumulate == Accumulate::kOverwrite) std::memset(a.dbias.data, 0, a.dbias.bytes());
  const VectorTable* table = best_table();
  const int64_t rows = a.dy.rows(), n = a.dy.columns();
  if (!table) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < n; ++i)
        a.dbias.as<float>()[i] +=
            a.dy.dtype == Dtype::kF32 ? a.dy.as<float>()[r * n + i] : to_float(a.dy.as<Bf16>()[r * n + i]);
    return;
  }
  const float* partial = row_blocks(context, rows, n, [&](int64_t begin, int64_t end, float* p) {
    table->column_sums(a.dy, begin, end, p);
  });
  fold(*table, partial, rows, n, 0, a.dbias);
}

void check_indices(const char* what, const TensorView& indices, int64_t low, int64_t size) {
  if (indices.device.kind != DeviceKind::kCpu) return;
  const int32_t* p = indices.as<int32_t>();
  for (int64_t i = 0; i < indices.count(); ++i)
    if (p[i] < low || p[i] >= size)
      fail(ErrorKind::kData, "{} {} in row {} is outside {}..{}: the data does not belong to this model",
           what, p[i], i, low, size - 1);
}

}  // namespace stoker::ops::cpu
