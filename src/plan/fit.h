// plan/fit.h
// Fits the efficiencies to measured runs: least squares of the log error, robust against outliers (an error
// counts in proportion once it is large, not squared), held to the priors by a ridge for every number, so
// that what few rows say moves little. Rows of a source weigh 1/sqrt(rows): between equal rows and equal
// sources. Held-out error by k-fold over configurations (engine, model and hardware family): no configuration
// is split.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "plan/efficiency.h"
#include "plan/published_run.h"

namespace stoker::plan {

struct FitOptions {
  int iterations = 25;
  double robust = 0.06;  // log error beyond which a row counts in proportion
};

// Fits the step-time terms on `runs`, starting from `start`.
EfficiencyTable fit_step_time(const std::vector<PublishedRun>& runs, const EfficiencyTable& start,
                              const FitOptions& options);

// Fits the memory terms: to measured peaks, and to which runs failed for want of memory and which did not.
EfficiencyTable fit_memory(const std::vector<PublishedRun>& runs, const EfficiencyTable& start,
                           const FitOptions& options);

struct HeldOutFold {
  std::vector<size_t> held_out;  // indices into the runs
};
// k folds by a hash of the group, the same on every machine: of the configuration, or of all runs of a model
// by an engine on a hardware family.
std::vector<HeldOutFold> group_folds(const std::vector<PublishedRun>& runs, int k, bool whole_models);
// One fold per source: how the planner does on a collection that it has never seen.
std::vector<HeldOutFold> source_folds(const std::vector<PublishedRun>& runs);

}  // namespace stoker::plan
