#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {

void linear_forward(Context&, const LinearForward& a) {
  const int64_t m_count = a.x.rows(), k_count = a.x.columns(), n_count = a.weight.shape[0];
  for (int64_t m = 0; m < m_count; ++m)
    for (int64_t n = 0; n < n_count; ++n) {
      double sum = a.bias ? get(a.bias, n) : 0;
      for (int64_t k = 0; k < k_count; ++k)
        sum += double{get(a.x, m * k_count + k)} * get(a.weight, n * k_count + k);
      put(a.y, m * n_count + n, static_cast<float>(sum));
    }
}

void linear_backward_input(Context&, const LinearBackwardInput& a) {
  const int64_t m_count = a.dy.rows(), n_count = a.dy.columns(), k_count = a.weight.shape[1];
  for (int64_t m = 0; m < m_count; ++m)
    for (int64_t k = 0; k < k_count; ++k) {
      double sum = a.accumulate == Accumulate::kAdd ? get(a.dx, m * k_count + k) : 0;
      for (int64_t n = 0; n < n_count; ++n)
        sum += double{get(a.dy, m * n_count + n)} * get(a.weight, n * k_count + k);
      put(a.dx, m * k_count + k, static_cast<float>(sum));
    }
}

void linear_backward_weight(Context&, const LinearBackwardWeight& a) {
  const int64_t m_count = a.dy.rows(), n_count = a.dy.columns(), k_count = a.x.columns();
  const bool add = a.accumulate == Accumulate::kAdd;
  for (int64_t n = 0; n < n_count; ++n) {
    for (int64_t k = 0; k < k_count; ++k) {
      double sum = add ? get(a.dweight, n * k_count + k) : 0;
      for (int64_t m = 0; m < m_count; ++m)
        sum += double{get(a.dy, m * n_count + n)} * get(a.x, m * k_count + k);
      put(a.dweight, n * k_count + k, static_cast<float>(sum));
    }
    if (!a.dbias) continue;
    double sum = add ? get(a.dbias, n) : 0;
    for (int64_t m = 0; m < m_count; ++m) sum += get(a.dy, m * n_count + n);
    put(a.dbias, n, static_cast<float>(sum));
  }
}

}  // namespace stoker::ops::ref
