#include "train/peak.h"

#include <algorithm>

#include "ops/linear.h"

namespace stoker::train {

double measure_peak(ops::Context& context, Precision precision, double seconds) {
  struct Size {
    int64_t m, n, k;
  };
  constexpr Size kSizes[] = {{1024, 768, 2048},  {4096, 768, 768},  {1024, 768, 768},
                             {2048, 2048, 2048}, {4096, 2304, 768}, {4096, 768, 2304}};
  const Dtype dtype = precision == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32;
  double best = 0;
  for (const Size& s : kSizes) {
    Arena arena;
    const auto take = [&] {
      return std::tuple{arena.take({s.m, s.k}, dtype), arena.take({s.n, s.k}, dtype),
                        arena.take({s.m, s.n}, dtype)};
    };
    take();
    arena.commit();
    const auto [x, w, y] = take();
    const double stop = monotonic_s() + seconds / static_cast<double>(std::size(kSizes));
    int runs = 0;
    do {
      const double begin = monotonic_s();
      ops::linear_forward(context, {x, w, {}, y});
      if (runs++) best = std::max(best, 2.0 * static_cast<double>(s.m * s.n * s.k) / (monotonic_s() - begin));
    } while (monotonic_s() < stop || runs < 3);
  }
  return best;
}

}  // namespace stoker::train
