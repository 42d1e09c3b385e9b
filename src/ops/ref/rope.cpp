#include <cmath>

#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {
namespace {

void rotate(const TensorView& qkv, const TensorView& positions, const TensorView& table, int64_t row,
            int64_t first, int64_t dh, double direction) {
  const int64_t half = dh / 2, p = positions.as<int32_t>()[row] * dh;
  for (int64_t i = 0; i < half; ++i) {
    const double c = get(table, p + i), s = direction * get(table, p + half + i);
    const double a = get(qkv, first + i), b = get(qkv, first + i + half);
    put(qkv, first + i, static_cast<float>(a * c - b * s));
    put(qkv, first + i + half, static_cast<float>(b * c + a * s));
  }
}

}  // namespace

void rope_forward(Context&, const RopeForward& a) {
  const int64_t dh = a.qkv.columns(), all = a.heads + 2 * a.kv_heads, rotated = a.heads + a.kv_heads,
                rows = a.positions.count();
  for (int64_t r = 0; r < rows; ++r) {
    if (a.raw)
      for (int64_t i = r * all * dh; i < (r + 1) * all * dh; ++i) put(a.raw, i, get(a.qkv, i));
    for (int64_t h = 0; h < rotated; ++h) {
      const int64_t first = (r * all + h) * dh;
      if (a.raw) {
        double squares = 0;
        for (int64_t i = 0; i < dh; ++i) squares += std::pow(get(a.raw, first + i), 2);
        const double rstd = 1 / std::sqrt(squares / static_cast<double>(dh) + a.eps);
        put(a.rstd, r * rotated + h, static_cast<float>(rstd));
        const TensorView& gain = h < a.heads ? a.q_gain : a.k_gain;
        for (int64_t i = 0; i < dh; ++i)
          put(a.qkv, first + i, static_cast<float>(get(a.raw, first + i) * rstd * get(gain, i)));
      }
      rotate(a.qkv, a.positions, a.table, r, first, dh, 1);
    }
  }
}

void rope_backward(Context&, const RopeBackward& a) {
  const int64_t dh = a.dqkv.columns(), all = a.heads + 2 * a.kv_heads, rotated = a.heads + a.kv_heads,
                rows = a.positions.count();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < rotated; ++h) {
      const int64_t first = (r * all + h) * dh;
      rotate(a.dqkv, a.positions, a.table, r, first, dh, -1);
      if (!a.raw) continue;
      const TensorView &gain = h < a.heads ? a.q_gain : a.k_gain,
                       &dgain = h < a.heads ? a.dq_gain : a.dk_gain;
      const double rstd = get(a.rstd, r * rotated + h);
      double mean_gx = 0;
      for (int64_t i = 0; i < dh; ++i)
        mean_gx += double{get(a.dqkv, first + i)} * get(gain, i) * get(a.raw, first + i) * rstd /
                   static_cast<double>(dh);
      for (int64_t i = 0; i < dh; ++i) {
        const double dy = get(a.dqkv, first + i), xhat = get(a.raw, first + i) * rstd;
        put(a.dqkv, first + i, static_cast<float>(rstd * (dy * get(gain, i) - xhat * mean_gx)));
        put(dgain, i, static_cast<float>(get(dgain, i) + dy * xhat));
      }
    }
}

}  // namespace stoker::ops::ref
