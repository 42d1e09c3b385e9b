#include "ops/rope.h"

#include <cmath>

#include "ops/cpu/rowwise.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

template <cpu::Table table>
void forward(Context&, const RopeForward& a) {
  parallel_ranges(a.positions.count(),
                  [&](int64_t begin, int64_t end, int) { table().rope_forward(a, begin, end); });
}

template <cpu::Table table>
void backward(Context& context, const RopeBackward& a) {
  const int64_t rows = a.positions.count(), dh = a.dqkv.columns();
  const float* partial = cpu::row_blocks(context, rows, 2 * dh, [&](int64_t begin, int64_t end, float* p) {
    table().rope_backward(a, begin, end, p, p + dh);
  });
  if (!a.raw) return;
  cpu::fold(table(), partial, rows, 2 * dh, 0, a.dq_gain);
  cpu::fold(table(), partial, rows, 2 * dh, dh, a.dk_gain);
}

constexpr auto kForward =
    cpu::candidates<RopeForward>(forward<cpu::vector_avx512>, forward<cpu::vector_avx2>, ref::rope_forward);
constexpr auto kBackward = cpu::candidates<RopeBackward>(backward<cpu::vector_avx512>,
                                                         backward<cpu::vector_avx2>, ref::rope_backward);

}  // namespace

void fill_rope_table(std::span<const double> frequency, TensorView table) {
  const int64_t half = static_cast<int64_t>(frequency.size());
  STOKER_CHECK(table.columns() == 2 * half);
  float* out = table.as<float>();
  parallel_for(table.rows(), [&](int64_t p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequency[static_cast<size_t>(i)];
      out[p * 2 * half + i] = static_cast<float>(std::cos(angle));
      out[p * 2 * half + half + i] = static_cast<float>(std::sin(angle));
    }
  });
}

void rope_forward(Context& context, const RopeForward& a) {
  STOKER_CHECK(a.qkv.count() == a.positions.count() * (a.heads + 2 * a.kv_heads) * a.qkv.columns());
  cpu::check_indices("position", a.positions, 0, a.table.rows());
  context.run<RopeForward>("rope_forward", kForward, a);
}

void rope_backward(Context& context, const RopeBackward& a) {
  STOKER_CHECK(a.dqkv.count() == a.positions.count() * (a.heads + 2 * a.kv_heads) * a.dqkv.columns());
  context.run<RopeBackward>("rope_backward", kBackward, a);
}

}  // namespace stoker::ops
