// plan/predict.h
// What a run will do, before it exists: memory of the fullest worker, time of one optimizer step broken down
// by term, and what binds. Equations and parameters: docs/planner-model.md.
// Numbers     seconds of one optimizer step; bytes of one accelerator; MFU against the dense peak of
//             the run's precision, model FLOPs without recomputation, full (not causal-halved) attention.
// Cost        a few microseconds; no I/O, thread-safe, deterministic.
// Errors      Usage: an impossible layout or hardware that the catalog does not know.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "plan/efficiency.h"
#include "spec/footprint.h"
#include "spec/hardware_spec.h"
#include "spec/run_spec.h"

namespace stoker::plan {

struct PlanInput {
  RunSpec run;
  HardwareSpec hardware;
  std::string engine;      // software whose habits are assumed ("stoker", "megatron-bridge"); empty: average
  std::string release;     // its generation, where the catalog knows several
  double score_scale = 1;  // attention arithmetic over that of heads x head_dim (CatalogModel)
  double scan_elements = 0;  // of state-space layers: read and written per token, averaged over layers
};

enum class StepTerm {
  kMatmul,       // matrix products of the layers and the head
  kAttention,    // scores, softmax, weighted sum
  kMemoryBound,  // norms, activations, residuals, loss: limited by memory bandwidth
  kRecompute,    // forward work done again
  kHost,         // launch of kernels that the accelerator waited for
  kTensorComm,   // exposed communication, by kind
  kContextComm,
  kExpertComm,
  kPipelineComm,
  kDataComm,
  kBubble,  // waiting for the pipeline to fill and drain
  kOptimizer,
  kFixed,       // once per step: logging, data feed, synchronisation
  kStragglers,  // slower than the median worker, grows with scale
};
inline constexpr int kStepTerms = 14;

enum class Binding {
  kArithmetic,
  kMemoryBandwidth,
  kNetworkInside,
  kNetworkBetween,
  kBubble,
  kHost,
  kOptimizer
};
enum class Verdict { kFits, kTight, kOutOfMemory };  // tight: within the error band of the capacity

struct StepTime {
  std::array<Seconds, kStepTerms> terms{};
  Seconds total;
  Seconds operator[](StepTerm t) const { return terms[static_cast<size_t>(t)]; }
};

struct MemoryUse {
  Footprint footprint;  // of the fullest pipeline stage
  int64_t stage = 0;
  Bytes peak, capacity;  // capacity: what the framework can use of the accelerator's memory
  Lifetime phase = Lifetime::kForwardBackward;
  Verdict verdict = Verdict::kFits;
};

struct Prediction {
  MemoryUse memory;
  StepTime step;
  double mfu = 0;                     // 0..1
  FlopsPerSecond model_flops;         // per accelerator
  TokensPerSecond tokens_per_second;  // all accelerators together
  Binding binds = Binding::kArithmetic;
  std::array<Binding, 3> next_limits{};  // in falling order of time
  double error_band = 0;                 // median relative error found in validation for this kind of run
  double error_band_p90 = 0;             // what nine of ten of them stayed within
  std::string error_band_group;          // which kind: "megatron-bridge on H100, dense"
  size_t error_band_runs = 0;
};

Prediction predict(const PlanInput& input);  // validates, looks the efficiencies up
Prediction predict(const PlanInput& input, const Efficiency& efficiency);  // search: looked up once
MemoryUse predict_memory(const PlanInput& input, const Efficiency& efficiency);
StepTime predict_step_time(const PlanInput& input, const Efficiency& efficiency);

// Wall time to train on `tokens`, without failures or pauses.
inline Seconds time_for(const Prediction& p, Tokens tokens) { return tokens / p.tokens_per_second; }

// FLOPs of one step that count for MFU, of all accelerators together: recomputation does not count, attention
// counts in full although causal; adapters skip the weight gradients of frozen matrices.
Flops model_flops_per_step(const PlanInput& input);

std::string_view to_string(StepTerm term);
std::string_view to_string(Binding binding);
std::string_view to_string(Verdict verdict);

}  // namespace stoker::plan
