#include "plan/assumed_layout.h"

#include <algorithm>

#include "plan/search.h"

namespace stoker::plan {
namespace {

constexpr int64_t kMicroBatchTokens = 16384;  // beyond it no product gets faster

int64_t floor_power_of_two(int64_t n) {
  int64_t p = 1;
  while (2 * p <= n) p *= 2;
  return p;
}

}  // namespace

int64_t usual_global_batch(const PlanInput& in) {
  const int64_t n = in.hardware.accelerators;
  const int64_t tokens =
      n >= 256 ? std::max<int64_t>(4'000'000, n * 4096) : std::max<int64_t>(500'000, n * 8192);
  const int64_t sequences = std::max<int64_t>(1, tokens / in.run.batch.sequence_length);
  return std::max<int64_t>(1, (sequences + n / 2) / n) * n;
}

void assume_layout(PlanInput& in, const StatedParts& stated) {
  BatchSpec& b = in.run.batch;
  if (!stated.global_batch) b.global_batch = usual_global_batch(in);
  SearchSpace space;
  space.vary_layout = !stated.layout;
  space.vary_zero = !stated.zero;
  space.vary_recompute = !stated.recompute;
  space.vary_micro_batch = !stated.micro_batch;
  space.max_tensor = 8;
  space.max_virtual_stages = 4;
  // Sequences are cut only where there are fewer of them than accelerators, or they are long.
  space.max_context = b.sequence_length > 16384 || b.global_batch < in.hardware.accelerators ? 64 : 1;
  space.max_micro_batch =
      std::max<int64_t>(1, floor_power_of_two(kMicroBatchTokens / std::max<int64_t>(1, b.sequence_length)));
  const Efficiency priors = EfficiencyTable().resolve(in.hardware.accelerator.family, "", "");
  const SearchResult found = explore(in, space, 1, priors);
  if (!found.best.empty()) in.run = found.best.front().run;
  else if (found.least_memory) in.run = found.least_memory->run;
}

}  // namespace stoker::plan
