// plan/sweep.h
// Many plans of one request: cluster sizes and kinds of hardware, where the bottleneck moves, and which plans
// no other beats in time, cost and energy together. Cost         one layout search and one small simulation
// per point
#pragma once
#include <string>
#include <vector>

#include "plan/assess.h"

namespace stoker::plan {

struct SweepPoint {
  std::string on;                        // "h100:512"
  std::optional<Assessment> assessment;  // where it could be planned
  std::string reason;                    // where not
  std::string bottleneck;          // compute, memory, network, bubble, host, failures, power, data or money
  double speedup_of_doubling = 0;  // against the point with half as many; 0: none
};

// Accelerator counts from, 2 x from, ... up to `to` of each kind. The batch stays as the request has it.
std::vector<SweepPoint> sweep(const PlanRequest& request, const std::vector<std::string>& kinds, int64_t from,
                              int64_t to, const AssessOptions& options);

// The same request on other hardware; layout settings that no longer fit are found anew.
PlanRequest on_hardware(const PlanRequest& request, const std::string& on);

struct ParetoPoint {
  std::string on;
  const Assessment* assessment = nullptr;
  const PathCost* cost = nullptr;
  double days = 0, dollars = 0, mwh = 0;
};
// Every (point, path) that can be had, without those that another one beats or equals in all three and beats
// in one.
std::vector<ParetoPoint> pareto(const std::vector<SweepPoint>& points);

}  // namespace stoker::plan
