#include <cmath>
#include <numbers>

#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {
namespace {
const double kRoot = std::sqrt(2 / std::numbers::pi);
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
}  // namespace

void activation_forward(Context&, const ActivationForward& a) {
  const int64_t rows = a.y.rows(), f = a.y.columns();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < f; ++i) {
      double y;
      if (a.form == ActivationForm::kSwiGlu) {
        const double gate = get(a.x, r * 2 * f + i), up = get(a.x, r * 2 * f + f + i);
        y = gate * sigmoid(gate) * up;
      } else {
        const double x = get(a.x, r * f + i);
        y = 0.5 * x * (1 + std::tanh(kRoot * (x + 0.044715 * x * x * x)));
      }
      put(a.y, r * f + i, static_cast<float>(y));
    }
}

void activation_backward(Context&, const ActivationBackward& a) {
  const int64_t rows = a.dy.rows(), f = a.dy.columns();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < f; ++i) {
      const double dy = get(a.dy, r * f + i);
      if (a.form == ActivationForm::kSwiGlu) {
        const double gate = get(a.x, r * 2 * f + i), up = get(a.x, r * 2 * f + f + i), s = sigmoid(gate);
        put(a.dx, r * 2 * f + i, static_cast<float>(dy * up * s * (1 + gate * (1 - s))));
        put(a.dx, r * 2 * f + f + i, static_cast<float>(dy * gate * s));
      } else {
        const double x = get(a.x, r * f + i), t = std::tanh(kRoot * (x + 0.044715 * x * x * x));
        put(a.dx, r * f + i,
            static_cast<float>(dy *
                               (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kRoot * (1 + 3 * 0.044715 * x * x))));
      }
    }
}

}  // namespace stoker::ops::ref
