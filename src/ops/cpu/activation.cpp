#include "ops/activation.h"

#include "ops/cpu/rowwise.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

template <cpu::Table table>
void forward(Context&, const ActivationForward& a) {
  parallel_ranges(a.y.rows(),
                  [&](int64_t begin, int64_t end, int) { table().activation_forward(a, begin, end); });
}

template <cpu::Table table>
void backward(Context&, const ActivationBackward& a) {
  parallel_ranges(a.dy.rows(),
                  [&](int64_t begin, int64_t end, int) { table().activation_backward(a, begin, end); });
}

constexpr auto kForward = cpu::candidates<ActivationForward>(
    forward<cpu::vector_avx512>, forward<cpu::vector_avx2>, ref::activation_forward);
constexpr auto kBackward = cpu::candidates<ActivationBackward>(
    backward<cpu::vector_avx512>, backward<cpu::vector_avx2>, ref::activation_backward);

}  // namespace

void activation_forward(Context& context, const ActivationForward& a) {
  STOKER_CHECK(a.x.count() == a.y.count() * (a.form == ActivationForm::kSwiGlu ? 2 : 1) &&
               a.x.dtype == a.y.dtype);
  context.run<ActivationForward>("activation_forward", kForward, a);
}

void activation_backward(Context& context, const ActivationBackward& a) {
  STOKER_CHECK(a.x.count() == a.dy.count() * (a.form == ActivationForm::kSwiGlu ? 2 : 1) &&
               a.x.dtype == a.dy.dtype);
  context.run<ActivationBackward>("activation_backward", kBackward, a);
}

}  // namespace stoker::ops
