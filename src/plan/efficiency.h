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

// What each is, its unit and its prior: kFacts in efficiency.cpp, in this order.
enum class Term {
  kMatmul16,
  kMatmul8,
  kMatmul4,
  kMatmul32,
  kAttention,
  kMemory,
  kPasses,
  kUnfusedAttention,
  kMisaligned,
  kScan,
  kQuantise,
  kKernel,
  kHostLayer,
  kHostExperts,
  kHostSoftmax,
  kHostAdapter,
  kHostTensor,
  kTile,
  kInside,
  kBetween,
  kLatency,
  kTensorExposed,
  kContextExposed,
  kExpertExposed,
  kExpertBetween,
  kExpertStart,
  kDataExposed,
  kPipelineExposed,
  kBubble,
  kExperts,
  kRouting,
  kOptimizer,
  kFixed,
  kStraggler,
  kCompute,
  kAdapter,
  kState,
  kActivation,
  kActivationWhole,
  kScores,
  kLogits,
  kWorkspace,
  kUsable,
  kCount
};
inline constexpr int kTerms = static_cast<int>(Term::kCount);

struct Efficiency {
  std::array<double, kTerms> value{};
  double operator[](Term t) const { return value[static_cast<size_t>(t)]; }
  static Efficiency from_logs(const std::array<double, kTerms>& logs);
};

// Where a number holds. `key` is "" for global, else "H100", "megatron", "megatron-bridge", "megatron-bridge 26.02",
// "megatron-bridge|H100". What a numbered release changed holds for the later ones too.
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
  std::vector<std::string> releases_of(std::string_view engine) const;  // "megatron-bridge 26.02"
  const std::vector<EfficiencyRow>& rows() const { return rows_; }

 private:
  std::vector<EfficiencyRow> rows_;
  std::unordered_map<std::string, std::array<double, kTerms>> by_key_[kScopes];
};

const EfficiencyTable& fitted_efficiency();  // catalog/efficiency.csv as built in

// Of `known` ("ENGINE RELEASE") those whose changes a release contains: the numbered ones up to it, and itself; no
// release means the newest.
std::vector<std::string> releases_within(const std::vector<std::string>& known, std::string_view engine,
                                         std::string_view release);

std::string_view name_of(Term term);
std::string_view name_of(Scope scope);

}  // namespace stoker::plan
