#include "train/peak.h"

#include <algorithm>

#include "ops/linear.h"

namespace stoker::train {
namespace {

struct Size {
  int64_t m, n, k;
};
constexpr Size kSizes[] = {{1024, 768, 2048},  {4096, 768, 768},  {1024, 768, 768},
                           {2048, 2048, 2048}, {4096, 2304, 768}, {4096, 768, 2304}};

Dtype dtype_of(Precision precision) { return precision == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32; }

}  // namespace

size_t peak_bytes(Precision precision) {
  int64_t most = 0;
  for (const Size& s : kSizes) most = std::max(most, s.m * s.k + s.n * s.k + s.m * s.n);
  return static_cast<size_t>(most) * dtype_size(dtype_of(precision));
}

double measure_peak(ops::Context& context, Precision precision, double seconds) {
  const Dtype dtype = dtype_of(precision);
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
