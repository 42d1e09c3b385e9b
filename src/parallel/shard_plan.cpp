#include "parallel/shard_plan.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace stoker::parallel {
namespace {

bool holds(const std::vector<Range>& ranges, Range part) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& r) { return r.begin <= part.begin && part.end <= r.end; });
}

}  // namespace

std::vector<size_t> shard_cuts(size_t elements, int workers) {
  if (workers < 1) fail(ErrorKind::kUsage, "{} workers: expected at least 1", workers);
  const size_t units = (elements + kShardUnit - 1) / kShardUnit, n = static_cast<size_t>(workers);
  std::vector<size_t> cuts;
  for (size_t w = 0; w <= n; ++w)
    cuts.push_back(std::min(elements, (w * (units / n) + std::min(w, units % n)) * kShardUnit));
  return cuts;
}

Range owned_range(size_t elements, int workers, int rank) {
  const auto cuts = shard_cuts(elements, workers);
  return {cuts.at(static_cast<size_t>(rank)), cuts.at(static_cast<size_t>(rank) + 1)};
}

std::vector<Range> held_ranges(int zero_stage, size_t elements, int workers, int rank) {
  if (zero_stage < 0 || zero_stage > 1)
    fail(ErrorKind::kUsage,
         "ZeRO stage {}: expected 0 (everything everywhere) or 1 (optimizer state sharded)", zero_stage);
  std::vector<Range> out;
  if (zero_stage == 0 || workers == 1) {
    if (elements > 0) out.push_back({0, elements});
    return out;
  }
  const Range own = owned_range(elements, workers, rank);
  const Range mirror = owned_range(elements, workers, (rank + workers - 1) % workers);
  for (const Range& r : {own, mirror})
    if (r.size() > 0) out.push_back(r);
  std::sort(out.begin(), out.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  return out;
}

MovePlan plan_moves(const std::vector<std::vector<Range>>& held,
                    const std::vector<std::vector<Range>>& wanted) {
  std::set<size_t> bounds;
  for (const auto* lists : {&held, &wanted})
    for (const auto& ranges : *lists)
      for (const Range& r : ranges) bounds.insert({r.begin, r.end});
  MovePlan plan;
  std::vector<size_t> load(held.size(), 0);
  for (size_t to = 0; to < wanted.size(); ++to)
    for (const Range& want : wanted[to])
      for (auto at = bounds.find(want.begin); *at < want.end;) {
        const size_t begin = *at++;
        const Range part{begin, *at};
        if (to < held.size() && holds(held[to], part)) continue;
        int best = -1;
        for (size_t from = 0; from < held.size(); ++from)
          if (holds(held[from], part) && (best < 0 || load[from] < load[static_cast<size_t>(best)]))
            best = static_cast<int>(from);
        if (best < 0) {
          plan.lost.push_back(part);
          continue;
        }
        load[static_cast<size_t>(best)] += part.size();
        plan.moves.push_back({best, static_cast<int>(to), part});
      }
  return plan;
}

}  // namespace stoker::parallel
