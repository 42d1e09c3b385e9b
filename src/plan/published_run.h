// plan/published_run.h
// A row of published measurements (docs/planner-model.md has the columns) read as a plan input and what was
// measured. What a row does not state is filled from its engine's habits, its model's catalog entry or, last,
// a rule; `assumed` lists what was filled. A row that cannot be read as a run says why.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "plan/csv.h"
#include "plan/predict.h"

namespace stoker::plan {

enum class Metric { kNone, kStepSeconds, kTokensPerSecondPerAccelerator, kTeraflops, kMfuPercent };

struct PublishedRun {
  std::string id, source, model_name, file;
  std::string source_group;  // the id's prefix: rows of one collection
  // Rows that must not be split between fit and test: twins in all but batch and release; or, stricter, every
  // run of a model by an engine on a hardware family.
  std::string configuration, model_on_hardware;
  std::string kind;    // row_kind
  std::string reason;  // not empty: cannot be predicted, and why
  std::vector<std::string> assumed;
  int guesses = 0;  // of what was assumed: its layout, its shape
  PlanInput input;
  int64_t mean_length = 0;  // where sequences vary: memory follows the longest, time the mean
  Metric metric = Metric::kNone;
  double measured = 0;
  bool hardware_flops = false;    // teraflops count recomputation
  bool against_fp8_peak = false;  // MFU percent relative to the 8-bit peak
  std::optional<double> peak_memory_gb;
  bool memory_in_gib = true;
  bool allocated_only = false;  // the peak is of tensors: no context, libraries, allocator slack
  bool recompute_stated = false;
  bool failed = false;         // did not run
  bool out_of_memory = false;  // for want of memory
};

std::vector<PublishedRun> read_published_runs(const CsvTable& table, const std::string& file);

// Step time of the row: of its mean sequence length where lengths vary.
StepTime published_step_terms(const PublishedRun& run, const Efficiency& efficiency);
Seconds predicted_step(const PublishedRun& run, const Efficiency& efficiency);

// The prediction in the row's own metric.
double predicted_in_metric(const PublishedRun& run, Seconds step);
std::string_view to_string(Metric metric);

}  // namespace stoker::plan
