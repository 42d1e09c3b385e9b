#include "ops/cross_entropy.h"

#include "ops/cpu/rowwise.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

template <cpu::Table table>
void whole(Context&, const CrossEntropy& a) {
  parallel_ranges(a.logits.rows(),
                  [&](int64_t begin, int64_t end, int) { table().cross_entropy(a, begin, end); });
}

template <cpu::Table table>
void softmax(Context&, const SliceSoftmax& a) {
  parallel_ranges(a.logits.rows(),
                  [&](int64_t begin, int64_t end, int) { table().slice_softmax(a, begin, end); });
}

template <cpu::Table table>
void gradient(Context&, const SliceGradient& a) {
  parallel_ranges(a.logits.rows(),
                  [&](int64_t begin, int64_t end, int) { table().slice_gradient(a, begin, end); });
}

constexpr auto kWhole =
    cpu::candidates<CrossEntropy>(whole<cpu::vector_avx512>, whole<cpu::vector_avx2>, ref::cross_entropy);
constexpr auto kSoftmax =
    cpu::candidates<SliceSoftmax>(softmax<cpu::vector_avx512>, softmax<cpu::vector_avx2>, ref::slice_softmax);
constexpr auto kGradient = cpu::candidates<SliceGradient>(gradient<cpu::vector_avx512>,
                                                          gradient<cpu::vector_avx2>, ref::slice_gradient);

}  // namespace

void cross_entropy(Context& context, const CrossEntropy& a) {
  STOKER_CHECK(a.logits.dtype == Dtype::kF32 && a.targets.count() == a.logits.rows() &&
               a.loss.count() == a.logits.rows());
  cpu::check_indices("target", a.targets, -1, a.logits.columns());
  context.run<CrossEntropy>("cross_entropy", kWhole, a);
}

void slice_softmax(Context& context, const SliceSoftmax& a) {
  const int64_t rows = a.logits.rows();
  STOKER_CHECK(a.logits.dtype == Dtype::kF32 && a.targets.count() == rows && a.top.count() == rows &&
               a.sum.count() == rows && a.sum.dtype == Dtype::kF64 && a.target_logit.count() == rows);
  cpu::check_indices("target", a.targets, -1, a.logits.columns());
  context.run<SliceSoftmax>("slice_softmax", kSoftmax, a);
}

void slice_gradient(Context& context, const SliceGradient& a) {
  STOKER_CHECK(a.logits.dtype == Dtype::kF32 && a.dlogits.count() == a.logits.count() &&
               a.targets.count() == a.logits.rows() && a.factor.count() == a.logits.rows());
  context.run<SliceGradient>("slice_gradient", kGradient, a);
}

}  // namespace stoker::ops
