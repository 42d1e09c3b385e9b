// spec/footprint.h
// The table of everything one worker holds in memory: a row per kind of tensor, with its bytes and when it is
// alive. The engine allocates by it, the planner sums it.
// Numbers      bytes of one worker (rank) at its peak; quantities that the framework rounds are not rounded.
// Activations  follow Korthikanti et al. 2022 (arXiv:2205.05198) for the plain transformer, extended by op
//              for gated feed-forward, grouped heads, flash attention and experts; ActivationStyle says what
//              an engine keeps of each op.
// Cost         a few hundred nanoseconds: closed form, no walk over layers.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "spec/run_spec.h"

namespace stoker {

enum class FootprintKind {
  kParameters,
  kGradients,
  kOptimizer,
  kActivations,    // kept from forward to backward, all in-flight micro-batches
  kTransient,      // of the layer being computed (recomputation, attention workspace)
  kLogits,         // output layer: logits, their gradient, their fp32 copy
  kCommunication,  // gathered parameters, bucket buffers
  kWorkspace       // context, libraries, allocator slack
};
inline constexpr int kFootprintKinds = 8;

// In which phase of the step a row is alive: peak = persistent + the larger of the two phases.
enum class Lifetime { kPersistent, kForwardBackward, kOptimizerStep };

struct FootprintRow {
  FootprintKind kind;
  std::string_view what;
  Lifetime lifetime;
  Bytes bytes;
};

// What an engine keeps for backward and in which width; the defaults are those of a fused bf16 engine.
struct ActivationStyle {
  double element_bytes = 2;             // activations of the residual stream and matrix products
  bool dropout_masks = false;           // one byte per element, three times a layer
  bool keeps_norm_output = true;        // input and output of each norm, or only the input
  bool keeps_activation_output = true;  // the product that enters the second feed-forward matrix
  double logits_bytes = 10;  // of each logit of one micro-batch: 16-bit, fp32 copy and its gradient
  bool logits_split = true;  // over tensor parallelism
  // What a framework keeps beyond the table: unfused kernels save their intermediate results too.
  double whole_scale = 1;  // tensors that tensor parallelism does not split: norms, residual stream
  double split_scale = 1;  // tensors that it splits
  double score_scale = 1;  // attention scores, where they reach memory
  // Selective recomputation by op: the inputs and every other matrix product are kept, the rest is done again.
  // Otherwise it drops the attention scores only, and nothing where attention is fused.
  bool selective_ops = false;
  bool fp32_parameters = false;  // working copy is fp32 under autocast (FSDP mixed precision)
};

struct FootprintOptions {
  ActivationStyle style;
  int64_t pipeline_stage = 0;  // whose worker
  Bytes workspace;             // context, libraries and allocator slack of the framework
  Bytes bucket;                // gradient or parameter communication buckets
};

struct Footprint {
  std::vector<FootprintRow> rows;
  Bytes sum(FootprintKind kind) const;
  Bytes peak() const;
  Lifetime peak_phase() const;  // kForwardBackward or kOptimizerStep
};

Footprint footprint(const RunSpec& run, const FootprintOptions& options);

// Parameters held by one worker of a stage before ZeRO shards them: dense part and expert part.
struct ParameterShare {
  double dense = 0, expert = 0, embedding = 0;
  double total() const { return dense + expert + embedding; }
};
ParameterShare stage_parameters(const ModelSpec& model, const LayoutSpec& layout, int64_t stage);

// Bytes that one layer keeps per micro-batch on one worker from forward to backward.
Bytes layer_activation_bytes(const RunSpec& run, const ActivationStyle& style);
// Micro-batches (in units of whole layers' worth) whose activations stage `stage` holds at once.
double in_flight_micro_batches(const LayoutSpec& layout, int64_t micro_batches, int64_t stage);

std::string_view to_string(FootprintKind kind);

}  // namespace stoker
