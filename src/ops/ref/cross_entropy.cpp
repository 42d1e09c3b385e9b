#include <algorithm>
#include <cmath>

#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {

void cross_entropy(Context&, const CrossEntropy& a) {
  const int64_t rows = a.logits.rows(), v = a.logits.columns();
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t target = a.targets.as<int32_t>()[r];
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < v; ++i) top = std::max<double>(top, get(a.logits, r * v + i));
    for (int64_t i = 0; i < v; ++i) sum += std::exp(get(a.logits, r * v + i) - top);
    put(a.loss, r, target < 0 ? 0 : static_cast<float>(top + std::log(sum) - get(a.logits, r * v + target)));
    if (!a.dlogits) continue;
    for (int64_t i = 0; i < v; ++i) {
      const double p = std::exp(get(a.logits, r * v + i) - top) / sum;
      put(a.dlogits, r * v + i, target < 0 ? 0 : static_cast<float>((p - (i == target)) * a.scale));
    }
  }
}

void slice_softmax(Context&, const SliceSoftmax& a) {
  const int64_t rows = a.logits.rows(), v = a.logits.columns();
  for (int64_t r = 0; r < rows; ++r) {
    float* x = a.logits.as<float>() + r * v;
    const int32_t target = a.targets.as<int32_t>()[r];
    a.target_logit.as<float>()[r] = target < 0 ? 0 : x[target];
    const float top = *std::max_element(x, x + v);
    double sum = 0;
    for (int64_t i = 0; i < v; ++i) {
      const double e = std::exp(static_cast<double>(x[i]) - static_cast<double>(top));
      sum += e;
      x[i] = static_cast<float>(e);
    }
    a.top.as<float>()[r] = top;
    a.sum.as<double>()[r] = sum;
  }
}

void slice_gradient(Context&, const SliceGradient& a) {
  const int64_t rows = a.logits.rows(), v = a.logits.columns();
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t target = a.targets.as<int32_t>()[r];
    const float factor = a.factor.as<float>()[r];
    for (int64_t i = 0; i < v; ++i) {
      const float p = get(a.logits, r * v + i) * factor;
      put(a.dlogits, r * v + i, i == target ? p - a.scale : p);
    }
  }
}

}  // namespace stoker::ops::ref
