#include "plan/matrix_product.h"

#include <algorithm>
#include <cmath>

namespace stoker::plan {

double soft_max(double a, double b) {
  const double high = std::max(a, b);
  if (high <= 0) return 0;
  double r = std::min(a, b) / high;
  r *= r, r *= r, r *= r;
  return high * std::sqrt(std::sqrt(std::sqrt(1 + r)));
}

double product_seconds(double m, double n, double k, const ProductRates& r) {
  const double fill = m / (m + r.tile) * (n / (n + r.tile)) * (k / (k + r.tile));
  return soft_max(2 * m * n * k / (r.arithmetic * fill), 2 * (m * k + k * n + m * n) / r.memory) + r.kernel;
}

}  // namespace stoker::plan
