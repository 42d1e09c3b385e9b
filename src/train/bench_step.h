// train/bench_step.h
// Times whole optimizer steps of published shapes against the matrix-product peak measured in the same run.
// Step      forward, backward, global norm, AdamW on random tokens; the median of `steps` after one warm-up
// Anatomy   share of the median step's wall time by kind of work; sums to 1. "other" is what no op accounts for
// MFU       tokens/s * train_flops_per_token (PaLM's count, no causal discount) / peak
#pragma once
#include <string>
#include <vector>

#include "spec/run_spec.h"

namespace stoker::train {

struct StepBenchOptions {
  std::vector<std::string> presets{"gpt2", "llama-124m"};
  int64_t rows = 4, length = 1024;
  int steps = 3;
  Precision precision = Precision::kBf16;
  std::string kernels;
};
struct AnatomyPart {
  std::string what;
  double share = 0;
};
struct StepBenchModel {
  std::string name;
  double tokens_per_s = 0, mfu = 0, step_s = 0;
  std::vector<AnatomyPart> anatomy;
};
struct StepBench {
  double peak_flops = 0;
  std::vector<StepBenchModel> models;
};

StepBench bench_step(const StepBenchOptions& options);

}  // namespace stoker::train
