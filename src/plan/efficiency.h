// plan/efficiency.h
// What of the makers' peaks is achieved, and the fixed costs beside: fitted numbers, each either global, of a
// hardware family, of a software engine or of one of its generations; never of a model or a single run.
//   log(term) = global + family + lineage + engine + release + engine-on-family   (absent: 0)
// A lineage is the code base that engines share (Megatron, PyTorch FSDP, XLA): an engine that the fit never saw
// still takes its relatives' habits.
// Source      catalog/efficiency.csv, written by `stoker plan fit` (docs/planner-model.md says on what data)
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace stoker::plan {

// X(id, name, prior, unit, what)
#define STOKER_EFFICIENCY_TERMS(X)                                                                           \
  X(kMatmul16, "matmul16", 0.75, "of peak", "large 16-bit matrix products")                                  \
  X(kMatmul8, "matmul8", 0.65, "of peak", "large 8-bit matrix products")                                     \
  X(kMatmul4, "matmul4", 0.50, "of peak", "large 4-bit matrix products")                                     \
  X(kMatmul32, "matmul32", 0.80, "of peak", "large 32-bit matrix products")                                  \
  X(kAttention, "attention", 0.45, "of 16-bit peak", "fused attention, causal half not computed")            \
  X(kMemory, "memory", 0.75, "of peak", "memory bandwidth of element-wise kernels")                          \
  X(kPasses, "passes", 1.0, "times ideal", "memory traffic of element-wise work over a fused one")           \
  X(kUnfusedAttention, "unfused_attention", 8.0, "passes", "reads and writes of the score matrix")           \
  X(kMisaligned, "misaligned", 20.0, "times", "score products of head widths that are no multiple of 8")     \
  X(kScan, "scan", 1.5, "times ideal", "memory traffic of state-space layers")                               \
  X(kQuantise, "quantise", 1.0, "times ideal", "memory traffic of casting to 8 or 4 bits")                   \
  X(kKernel, "kernel", 6e-6, "s", "fixed cost of one kernel on the accelerator")                             \
  X(kHostLayer, "host_layer", 3e-4, "s", "host time to launch one layer's forward pass")                     \
  X(kHostExperts, "host_experts", 2.0, "times", "host time of a layer with experts over a dense one")        \
  X(kHostSoftmax, "host_softmax", 1.2, "times", "host time where the fused softmax does not take the shape") \
  X(kHostAdapter, "host_adapter", 1.5, "times", "host time of a layer with adapters beside its matrices")    \
  X(kHostTensor, "host_tensor", 0.05, "per rank", "host time more per further rank of a tensor group")       \
  X(kTile, "tile", 96, "elements", "width of a matrix at which a product reaches half its rate")             \
  X(kInside, "inside", 0.75, "of peak", "collective bandwidth inside the fast domain")                       \
  X(kBetween, "between", 0.70, "of peak", "collective bandwidth between nodes")                              \
  X(kLatency, "latency", 1.5e-5, "s", "start of a collective, per doubling of its group")                    \
  X(kTensorExposed, "tensor_exposed", 0.8, "share", "tensor-parallel communication not hidden")              \
  X(kContextExposed, "context_exposed", 0.3, "share", "context-parallel communication not hidden")           \
  X(kExpertExposed, "expert_exposed", 0.8, "share", "expert all-to-all not hidden")                          \
  X(kExpertBetween, "expert_between", 1.0, "times", "expert all-to-all between nodes, over its wire time")   \
  X(kDataExposed, "data_exposed", 0.35, "share", "gradient and parameter exchange not hidden")               \
  X(kPipelineExposed, "pipeline_exposed", 0.7, "share", "stage-to-stage transfers not hidden")               \
  X(kBubble, "bubble", 1.0, "times ideal", "pipeline fill and drain")                                        \
  X(kExperts, "experts", 1.15, "times ideal", "grouped products: imbalance, padding, permutation")           \
  X(kOptimizer, "optimizer", 1.2, "times ideal", "memory traffic of the optimizer")                          \
  X(kFixed, "fixed", 0.01, "s", "once per step")                                                             \
  X(kStraggler, "straggler", 0.01, "per doubling", "slowdown per doubling of nodes")                         \
  X(kCompute, "compute", 1.0, "times", "all work on the accelerator: clocks, power limit, unmodelled")       \
  X(kAdapter, "adapter", 1.0, "times", "work of a run that trains adapters only")                            \
  X(kState, "state", 1.0, "times", "memory: parameters, gradients, optimizer state")                         \
  X(kActivation, "activation", 1.0, "times table", "memory: activations that tensor parallelism splits")     \
  X(kActivationWhole, "activation_whole", 1.0, "times table", "memory: activations that it does not")        \
  X(kScores, "scores", 1.0, "times table", "memory: attention scores where not fused")                       \
  X(kLogits, "logits", 10.0, "B per logit", "memory: logits, their gradient and copies")                     \
  X(kWorkspace, "workspace", 2.5e9, "B", "memory: context, libraries, allocator slack")                      \
  X(kUsable, "usable", 0.99, "of capacity", "memory usable before allocation fails")

enum class Term {
#define X(id, name, prior, unit, what) id,
  STOKER_EFFICIENCY_TERMS(X)
#undef X
};
#define X(id, name, prior, unit, what) +1
inline constexpr int kTerms = 0 STOKER_EFFICIENCY_TERMS(X);
#undef X

struct Efficiency {
  std::array<double, kTerms> value{};
  double operator[](Term t) const { return value[static_cast<size_t>(t)]; }
};

// Where a number holds. `key` is "" for global, else "H100", "megatron", "megatron-bridge", "megatron-bridge 26.02",
// "megatron-bridge|H100".
enum class Scope { kGlobal, kFamily, kLineage, kEngine, kRelease, kEngineOnFamily };
inline constexpr int kScopes = 6;

struct EfficiencyRow {
  Term term;
  Scope scope;
  std::string key;
  double log_value = 0;  // global: ln of the value itself; else added
};

// A chip's products, links or memory measured alone: catalog/measured_ceilings.csv. A family whose runs the fit
// has not seen starts from here.
struct MeasuredCeiling {
  Term term;
  std::string family;
  double measured = 0, peak = 0;
  double over_reference = 1;  // share of the peak, over the share that the reference chip (H100) reaches
  bool reference = false;
};
const std::vector<MeasuredCeiling>& measured_ceilings();

class EfficiencyTable {
 public:
  EfficiencyTable();  // the priors
  static EfficiencyTable parse(std::string_view csv, std::string_view name);
  std::string to_csv() const;
  void set(Term term, Scope scope, std::string_view key, double log_value);
  double get(Term term, Scope scope, std::string_view key) const;  // 0 where absent
  Efficiency resolve(std::string_view family, std::string_view engine, std::string_view release) const;
  bool knows_engine(std::string_view engine) const;
  const std::vector<EfficiencyRow>& rows() const { return rows_; }

 private:
  std::vector<EfficiencyRow> rows_;
  std::unordered_map<std::string, std::array<double, kTerms>> by_key_[kScopes];
};

const EfficiencyTable& fitted_efficiency();  // catalog/efficiency.csv as built in

std::string_view name_of(Term term);
std::string_view name_of(Scope scope);

}  // namespace stoker::plan
