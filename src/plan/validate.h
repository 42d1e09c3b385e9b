// plan/validate.h
// How wrong the planner is: every published run predicted and compared, nothing dropped.
// Error       |predicted - measured| / measured, in the metric that the row states: step time,
//             else tokens per second and accelerator,
//             else TFLOP/s, else MFU.
// Summaries   over rows; and with every source (a collection of rows) weighted equally.
#pragma once
#include <array>
#include <map>
#include <string>
#include <vector>

#include "plan/published_run.h"

namespace stoker::plan {

struct RowResult {
  const PublishedRun* run = nullptr;
  double predicted = 0, error = 0;  // relative, absolute value
  StepTime step;
  double predicted_peak_gb = 0, memory_error = 0;
  std::array<double, kFootprintKinds> memory_gib{};  // by kind, of the fullest worker
  bool predicted_oom = false;
  bool compared = false;         // has an error
  bool memory_compared = false;  // has a memory error
  bool fit_judged = false;       // counts for out-of-memory accuracy
  std::string reason;            // why it was not predicted or compared
};

struct ErrorSummary {
  size_t rows = 0, compared = 0;
  double median = 0, p90 = 0, mean = 0, bias = 0;  // bias: median of signed log error
};

struct Validation {
  std::vector<RowResult> rows;
  ErrorSummary all, memory;
  ErrorSummary equal_sources;  // every source weighted equally
  std::map<std::string, ErrorSummary> by_source, by_hardware, by_kind;
  size_t ran = 0, ran_called_oom = 0, failed = 0, failed_called_oom = 0;
  double oom_balanced_accuracy =
      0;  // mean of the two recalls; of one where only one kind is given; NaN: none
};

Validation validate_runs(const std::vector<PublishedRun>& runs, const EfficiencyTable& efficiency);
Validation summarise_results(std::vector<RowResult> rows);

// Memory of a published run: where its recomputation is not stated, as much of it as it takes to fit.
MemoryUse memory_of_published(const PublishedRun& run, const Efficiency& efficiency);

// Its peak as the source counts it: of all that the accelerator holds, or of tensors only.
Bytes published_peak(const PublishedRun& run, const MemoryUse& memory);

// Weighted quantile of values; weights positive.
double weighted_quantile(std::vector<std::pair<double, double>> value_weight, double q);

}  // namespace stoker::plan
