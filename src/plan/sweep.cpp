#include "plan/sweep.h"

#include <algorithm>

#include "base/error.h"
#include "base/stop.h"
#include "plan/catalog.h"

namespace stoker::plan {
namespace {

std::string_view resource_of(Binding binding) {
  switch (binding) {
    case Binding::kArithmetic:
      return "compute";
    case Binding::kMemoryBandwidth:
      return "memory bandwidth";
    case Binding::kNetworkInside:
    case Binding::kNetworkBetween:
      return "network";
    case Binding::kBubble:
      return "pipeline bubble";
    case Binding::kHost:
      return "host";
    case Binding::kOptimizer:
      return "optimizer";
  }
  return "?";
}

// What the next doubling would be wasted on: the limits that the user set first, then what grows with the
// cluster.
std::string bottleneck_of(const Assessment& a, const Assessment* half) {
  for (const Limit& limit : a.limits)
    if (!limit.met && (limit.what == "memory" || limit.what == "power" || limit.what == "data"))
      return limit.what;
  for (const Limit& limit : a.limits)
    if (!limit.met && limit.what == "budget") return "money";
  const double lost = 1 - a.goodput.mean_goodput;
  // A worker that holds a single sequence cannot be split further.
  const int64_t sequences = a.chosen.run.batch.global_batch / a.chosen.run.layout.data;
  const double waiting = 1 - a.utilisation / std::max(a.goodput.mean_goodput, 1e-9);
  if (lost > waiting && lost > 0.2) return "failures";
  if (half && half->cost().possible && a.cost().possible) {
    const double faster = half->wall_p50 / a.wall_p50;
    const double dearer = a.cost().total.mid / half->cost().total.mid;
    if (dearer > 1.5 && faster < 1.33) return sequences <= 1 ? "money (batch exhausted)" : "money";
  }
  if (waiting < 0.4) return "compute";
  for (const Binding b :
       {a.chosen.prediction.binds, a.chosen.prediction.next_limits[0], a.chosen.prediction.next_limits[1]})
    if (b != Binding::kArithmetic && b != Binding::kMemoryBandwidth) return std::string(resource_of(b));
  return "compute";
}

}  // namespace

PlanRequest on_hardware(const PlanRequest& request, const std::string& on) {
  PlanRequest r = request;
  r.on = on;
  r.hardware = parse_hardware(on);
  if (r.fixed_layout && r.run.layout.world_size() != r.hardware.accelerators) {
    const LayoutSpec old = r.run.layout;
    const int64_t rest = old.tensor * old.pipeline * old.context;
    if (r.hardware.accelerators % rest == 0) r.run.layout.data = r.hardware.accelerators / rest;
    else r.fixed_layout = false;
  }
  return r;
}

std::vector<SweepPoint> sweep(const PlanRequest& request, const std::vector<std::string>& kinds, int64_t from,
                              int64_t to, const AssessOptions& options) {
  if (from < 1 || to < from)
    fail(ErrorKind::kUsage, "accelerators from {} contradicts to {}: expected 1 <= from <= to", from, to);
  std::vector<SweepPoint> points;
  for (const std::string& kind : kinds) {
    const std::string name = kind.substr(0, kind.find(':'));
    find_accelerator(name);
    std::optional<size_t> previous;
    for (int64_t n = from; n <= to; n *= 2) {
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped");
      SweepPoint point;
      point.on = fmt::format("{}:{}", name, n);
      try {
        point.assessment = assess(on_hardware(request, point.on), options);
      } catch (const Error& e) {
        if (e.kind() != ErrorKind::kUsage) throw;
        point.reason = e.what();
      }
      if (point.assessment && !point.assessment->fits) {
        point.reason =
            point.assessment->limits.empty() ? "does not fit in memory" : point.assessment->limits[0].text;
        point.assessment.reset();
      }
      if (point.assessment) {
        const Assessment* half = previous ? &*points[*previous].assessment : nullptr;
        point.bottleneck = bottleneck_of(*point.assessment, half);
        if (half) point.speedup_of_doubling = half->wall_p50 / point.assessment->wall_p50;
      }
      points.push_back(std::move(point));
      previous = points.back().assessment ? std::optional(points.size() - 1) : std::nullopt;
    }
  }
  return points;
}

std::vector<ParetoPoint> pareto(const std::vector<SweepPoint>& points) {
  std::vector<ParetoPoint> all, best;
  for (const SweepPoint& p : points) {
    if (!p.assessment) continue;
    for (const PathCost& cost : p.assessment->paths)
      if (cost.possible) {
        const Assessment& a = *p.assessment;
        all.push_back({p.on, &a, &cost, cost.wall.mid.value() / 86400, cost.total.mid.value(),
                       cost.energy.site.mid.value() / 3.6e9});
      }
  }
  const auto beats = [](const ParetoPoint& x, const ParetoPoint& y) {
    return x.days <= y.days && x.dollars <= y.dollars && x.mwh <= y.mwh &&
           (x.days < y.days || x.dollars < y.dollars || x.mwh < y.mwh);
  };
  for (const ParetoPoint& candidate : all)
    if (std::none_of(all.begin(), all.end(),
                     [&](const ParetoPoint& other) { return beats(other, candidate); }))
      best.push_back(candidate);
  std::sort(best.begin(), best.end(), [](const auto& x, const auto& y) { return x.days < y.days; });
  return best;
}

}  // namespace stoker::plan
