#include <cmath>

#include "ops/ref/ref.h"

namespace stoker::ops::ref {
namespace {
void write_copy(const TensorView& copy, int64_t i, float value) {
  if (copy) copy.as<Bf16>()[i] = to_bf16(value);
}
}  // namespace

void adamw(Context&, const AdamW& a) {
  float *p = a.param.as<float>(), *m = a.m.as<float>(), *v = a.v.as<float>();
  const float* grad = a.grad.as<float>();
  const float correct1 = static_cast<float>(1 / (1 - std::pow(double{a.beta1}, static_cast<double>(a.step))));
  const float correct2 = static_cast<float>(1 / (1 - std::pow(double{a.beta2}, static_cast<double>(a.step))));
  for (int64_t i = 0; i < a.param.count(); ++i) {
    const float g = grad[i] * a.grad_scale;
    m[i] = a.beta1 * m[i] + (1 - a.beta1) * g;
    v[i] = a.beta2 * v[i] + (1 - a.beta2) * g * g;
    p[i] =
        p[i] * (1 - a.lr * a.weight_decay) - a.lr * (m[i] * correct1) / (std::sqrt(v[i] * correct2) + a.eps);
    write_copy(a.copy, i, p[i]);
  }
}

void sgd(Context&, const Sgd& a) {
  float *p = a.param.as<float>(), *m = a.m ? a.m.as<float>() : nullptr;
  for (int64_t i = 0; i < a.param.count(); ++i) {
    float step = a.grad.as<float>()[i] * a.grad_scale;
    if (m) step = m[i] = a.momentum * m[i] + step;
    p[i] = p[i] * (1 - a.lr * a.weight_decay) - a.lr * step;
    write_copy(a.copy, i, p[i]);
  }
}

void add_into(Context&, const AddInto& a) {
  for (int64_t i = 0; i < a.y.count(); ++i) a.y.as<float>()[i] += a.x.as<float>()[i];
}

void sum_squares(Context&, const SumSquares& a) {
  double sum = 0;
  for (int64_t i = 0; i < a.x.count(); ++i) sum += std::pow(double{a.x.as<float>()[i]}, 2);
  *a.out = sum;
  if (!a.blocks) return;
  for (int64_t i = 0; i < a.x.count(); ++i) {
    if (i % kSumBlock == 0) a.blocks[i / kSumBlock] = 0;
    a.blocks[i / kSumBlock] += std::pow(double{a.x.as<float>()[i]}, 2);
  }
}

void round_copy(Context&, const RoundCopy& a) {
  for (int64_t i = 0; i < a.source.count(); ++i) a.copy.as<Bf16>()[i] = to_bf16(a.source.as<float>()[i]);
}

}  // namespace stoker::ops::ref
