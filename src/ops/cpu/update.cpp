#include "ops/update.h"

#include "ops/cpu/rowwise.h"
#include "ops/cuda/candidates.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

constexpr int64_t kElementBlock = 65536;

template <cpu::Table table>
void step_adamw(Context&, const AdamW& a) {
  parallel_ranges(a.param.count(), [&](int64_t begin, int64_t end, int) { table().adamw(a, begin, end); });
}

template <cpu::Table table>
void step_sgd(Context&, const Sgd& a) {
  parallel_ranges(a.param.count(), [&](int64_t begin, int64_t end, int) { table().sgd(a, begin, end); });
}

template <cpu::Table table>
void add(Context&, const AddInto& a) {
  parallel_ranges(a.y.count(), [&](int64_t begin, int64_t end, int) {
    table().add(a.y.as<float>() + begin, a.x.as<float>() + begin, end - begin);
  });
}

template <cpu::Table table>
void squares(Context& context, const SumSquares& a) {
  const int64_t count = a.x.count(), n = cpu::blocks(count, kElementBlock);
  double* sums =
      a.blocks ? a.blocks : static_cast<double*>(context.scratch(static_cast<size_t>(n) * sizeof(double)));
  parallel_for(n, [&](int64_t b) {
    sums[b] = table().sum_squares(a.x.as<float>() + b * kElementBlock,
                                  std::min(kElementBlock, count - b * kElementBlock));
  });
  *a.out = 0;
  for (int64_t b = 0; b < n; ++b) *a.out += sums[b];
}

template <cpu::Table table>
void round(Context&, const RoundCopy& a) {
  parallel_ranges(a.source.count(),
                  [&](int64_t begin, int64_t end, int) { table().round_copy(a, begin, end); });
}

constexpr auto kAdamW =
    cpu::candidates<AdamW>(step_adamw<cpu::vector_avx512>, step_adamw<cpu::vector_avx2>, ref::adamw);
constexpr auto kSgd =
    cpu::candidates<Sgd>(step_sgd<cpu::vector_avx512>, step_sgd<cpu::vector_avx2>, ref::sgd);
constexpr auto kAddInto =
    cpu::candidates<AddInto>(add<cpu::vector_avx512>, add<cpu::vector_avx2>, ref::add_into);
constexpr auto kSumSquares =
    cpu::candidates<SumSquares>(squares<cpu::vector_avx512>, squares<cpu::vector_avx2>, ref::sum_squares);
constexpr auto kRoundCopy =
    cpu::candidates<RoundCopy>(round<cpu::vector_avx512>, round<cpu::vector_avx2>, ref::round_copy);

}  // namespace

void adamw(Context& context, const AdamW& a) {
  STOKER_CHECK(a.param.count() == a.grad.count() && a.m.count() == a.param.count() &&
               a.v.count() == a.param.count());
  context.run<AdamW>("adamw", kAdamW, a, cuda::adamw_candidates());
}

void sgd(Context& context, const Sgd& a) { context.run<Sgd>("sgd", kSgd, a); }

void add_into(Context& context, const AddInto& a) {
  STOKER_CHECK(a.y.count() == a.x.count());
  context.run<AddInto>("add_into", kAddInto, a);
}

double sum_squares(Context& context, TensorView x) {
  double out = 0;
  context.run<SumSquares>("sum_squares", kSumSquares, {x, &out});
  return out;
}

void sum_squares_blocks(Context& context, TensorView x, double* blocks) {
  double out = 0;
  context.run<SumSquares>("sum_squares", kSumSquares, {x, &out, blocks});
}

void round_copy(Context& context, const RoundCopy& a) {
  STOKER_CHECK(a.source.count() == a.copy.count() && a.source.dtype == Dtype::kF32 &&
               a.copy.dtype == Dtype::kBf16);
  context.run<RoundCopy>("round_copy", kRoundCopy, a);
}

}  // namespace stoker::ops
