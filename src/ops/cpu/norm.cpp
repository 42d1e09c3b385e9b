#include "ops/cpu/rowwise.h"
#include "ops/cuda/candidates.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

template <cpu::Table table>
void forward(Context&, const NormForward& a) {
  parallel_ranges(a.x.rows(), [&](int64_t begin, int64_t end, int) { table().norm_forward(a, begin, end); });
}

template <cpu::Table table>
void backward(Context& context, const NormBackward& a) {
  const int64_t rows = a.x.rows(), d = a.x.columns(), width = a.dbias ? 2 * d : d;
  const float* partial = cpu::row_blocks(context, rows, width, [&](int64_t begin, int64_t end, float* p) {
    table().norm_backward(a, begin, end, p, a.dbias ? p + d : nullptr);
  });
  cpu::fold(table(), partial, rows, width, 0, a.dgain);
  if (a.dbias) cpu::fold(table(), partial, rows, width, d, a.dbias);
}

constexpr auto kForward =
    cpu::candidates<NormForward>(forward<cpu::vector_avx512>, forward<cpu::vector_avx2>, ref::norm_forward);
constexpr auto kBackward = cpu::candidates<NormBackward>(backward<cpu::vector_avx512>,
                                                         backward<cpu::vector_avx2>, ref::norm_backward);

}  // namespace

void norm_forward(Context& context, const NormForward& a) {
  STOKER_CHECK(a.x.shape == a.y.shape && a.x.dtype == a.y.dtype && a.gain.count() == a.x.columns() &&
               a.rstd.count() == a.x.rows());
  STOKER_CHECK(static_cast<bool>(a.delta) == static_cast<bool>(a.x_out) &&
               (a.form == NormForm::kLayer) == static_cast<bool>(a.mean));
  context.run<NormForward>("norm_forward", kForward, a, cuda::norm_forward_candidates());
}

void norm_backward(Context& context, const NormBackward& a) {
  STOKER_CHECK(a.x.shape == a.dx.shape && a.x.dtype == a.dx.dtype && a.x.dtype == a.dy.dtype &&
               a.gain.count() == a.x.columns());
  context.run<NormBackward>("norm_backward", kBackward, a, cuda::norm_backward_candidates());
}

}  // namespace stoker::ops
