#include "parallel/shard_plan.h"

#include <algorithm>
#include <set>

namespace stoker::parallel {
namespace {

bool holds(const std::vector<Range>& ranges, Range part) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const Range& r) { return r.begin <= part.begin && part.end <= r.end; });
}

}  // namespace

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
