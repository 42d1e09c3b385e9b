#include <cmath>

#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {

void norm_forward(Context&, const NormForward& a) {
  const int64_t rows = a.x.rows(), d = a.x.columns();
  const bool layer = a.form == NormForm::kLayer;
  for (int64_t r = 0; r < rows; ++r) {
    TensorView x = a.x;
    if (a.delta) {
      for (int64_t i = r * d; i < (r + 1) * d; ++i) put(a.x_out, i, get(a.x, i) + get(a.delta, i));
      x = a.x_out;
    }
    double mean = 0, variance = 0;
    if (layer) {
      for (int64_t i = 0; i < d; ++i) mean += get(x, r * d + i);
      mean /= static_cast<double>(d);
      put(a.mean, r, static_cast<float>(mean));
    }
    for (int64_t i = 0; i < d; ++i) variance += std::pow(get(x, r * d + i) - mean, 2);
    const double rstd = 1 / std::sqrt(variance / static_cast<double>(d) + a.eps);
    put(a.rstd, r, static_cast<float>(rstd));
    for (int64_t i = 0; i < d; ++i)
      put(a.y, r * d + i,
          static_cast<float>((get(x, r * d + i) - mean) * rstd * get(a.gain, i) +
                             (a.bias ? get(a.bias, i) : 0)));
  }
}

void norm_backward(Context&, const NormBackward& a) {
  const int64_t rows = a.x.rows(), d = a.x.columns();
  const bool layer = a.form == NormForm::kLayer;
  for (int64_t r = 0; r < rows; ++r) {
    const double rstd = get(a.rstd, r), mean = layer ? get(a.mean, r) : 0;
    double mean_g = 0, mean_gx = 0;  // of dy*gain, and of dy*gain*xhat
    for (int64_t i = 0; i < d; ++i) {
      const double g = double{get(a.dy, r * d + i)} * get(a.gain, i),
                   xhat = (get(a.x, r * d + i) - mean) * rstd;
      mean_g += g / static_cast<double>(d);
      mean_gx += g * xhat / static_cast<double>(d);
    }
    for (int64_t i = 0; i < d; ++i) {
      const double dy = get(a.dy, r * d + i), xhat = (get(a.x, r * d + i) - mean) * rstd;
      double dx = rstd * (dy * get(a.gain, i) - (layer ? mean_g : 0) - xhat * mean_gx);
      if (a.dx_accumulate == Accumulate::kAdd) dx += get(a.dx, r * d + i);
      put(a.dx, r * d + i, static_cast<float>(dx));
      put(a.dgain, i, static_cast<float>(get(a.dgain, i) + dy * xhat));
      if (a.dbias) put(a.dbias, i, static_cast<float>(get(a.dbias, i) + dy));
    }
  }
}

}  // namespace stoker::ops::ref
