#include "plan/efficiency.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

struct TermFact {
  Term term;
  std::string_view name;
  double prior;
  std::string_view unit, what;
};
constexpr TermFact kFacts[] = {
    {Term::kMatmul16, "matmul16", 0.75, "of peak", "large 16-bit matrix products"},
    {Term::kMatmul8, "matmul8", 0.65, "of peak", "large 8-bit matrix products"},
    {Term::kMatmul4, "matmul4", 0.50, "of peak", "large 4-bit matrix products"},
    {Term::kMatmul32, "matmul32", 0.80, "of peak", "large 32-bit matrix products"},
    {Term::kAttention, "attention", 0.45, "of 16-bit peak", "fused attention, causal half not computed"},
    {Term::kMemory, "memory", 0.75, "of peak", "memory bandwidth of element-wise kernels"},
    {Term::kPasses, "passes", 1.0, "times ideal", "memory traffic of element-wise work over a fused one"},
    {Term::kUnfusedAttention, "unfused_attention", 8.0, "passes", "reads and writes of the score matrix"},
    {Term::kMisaligned, "misaligned", 20.0, "times",
     "score products of head widths that are no multiple of 8"},
    {Term::kScan, "scan", 1.5, "times ideal", "memory traffic of state-space layers"},
    {Term::kQuantise, "quantise", 1.0, "times ideal", "memory traffic of casting to 8 or 4 bits"},
    {Term::kKernel, "kernel", 6e-6, "s", "fixed cost of one kernel on the accelerator"},
    {Term::kHostLayer, "host_layer", 8e-4, "s", "host time to launch one layer's forward pass"},
    {Term::kHostExperts, "host_experts", 2.0, "times", "host time of a layer with experts over a dense one"},
    {Term::kHostSoftmax, "host_softmax", 1.2, "times",
     "host time where the fused softmax does not take the shape"},
    {Term::kHostAdapter, "host_adapter", 2.0, "times",
     "host time of a layer with adapters beside its matrices"},
    {Term::kHostTensor, "host_tensor", 0.05, "per rank", "host time more per further rank of a tensor group"},
    {Term::kTile, "tile", 96, "elements", "width of a matrix at which a product reaches half its rate"},
    {Term::kInside, "inside", 0.75, "of peak", "collective bandwidth inside the fast domain"},
    {Term::kBetween, "between", 0.70, "of peak", "collective bandwidth between nodes"},
    {Term::kLatency, "latency", 1.5e-5, "s", "start of a collective, per doubling of its group"},
    {Term::kTensorExposed, "tensor_exposed", 0.8, "share", "tensor-parallel communication not hidden"},
    {Term::kContextExposed, "context_exposed", 0.3, "share", "context-parallel communication not hidden"},
    {Term::kExpertExposed, "expert_exposed", 0.8, "share", "expert all-to-all not hidden"},
    {Term::kExpertBetween, "expert_between", 1.0, "times",
     "expert all-to-all between nodes, over its wire time"},
    {Term::kExpertStart, "expert_start", 2e-5, "s", "start of an expert all-to-all: counts, waiting ranks"},
    {Term::kDataExposed, "data_exposed", 0.35, "share", "gradient and parameter exchange not hidden"},
    {Term::kPipelineExposed, "pipeline_exposed", 0.7, "share", "stage-to-stage transfers not hidden"},
    {Term::kBubble, "bubble", 1.0, "times ideal", "pipeline fill and drain"},
    {Term::kExperts, "experts", 1.15, "times ideal", "grouped products: imbalance, padding"},
    {Term::kRouting, "routing", 1.0, "times ideal", "memory traffic of permuting rows to experts and back"},
    {Term::kOptimizer, "optimizer", 1.2, "times ideal", "memory traffic of the optimizer"},
    {Term::kFixed, "fixed", 0.01, "s", "once per step"},
    {Term::kStraggler, "straggler", 0.01, "per doubling", "slowdown per doubling of nodes"},
    {Term::kCompute, "compute", 1.0, "times", "all work on the accelerator: clocks, power limit, unmodelled"},
    {Term::kAdapter, "adapter", 1.0, "times", "work of a run that trains adapters only"},
    {Term::kState, "state", 1.0, "times", "memory: parameters, gradients, optimizer state"},
    {Term::kActivation, "activation", 1.0, "times table",
     "memory: activations that tensor parallelism splits"},
    {Term::kActivationWhole, "activation_whole", 1.0, "times table", "memory: activations that it does not"},
    {Term::kScores, "scores", 1.0, "times table", "memory: attention scores where not fused"},
    {Term::kLogits, "logits", 10.0, "B per logit", "memory: logits, their gradient and copies"},
    {Term::kWorkspace, "workspace", 2.5e9, "B", "memory: context, libraries, allocator slack"},
    {Term::kUsable, "usable", 0.99, "of capacity", "memory usable before allocation fails"},
};
static_assert(std::size(kFacts) == kTerms);
static_assert(
    [] {
      for (size_t t = 0; t < kTerms; ++t)
        if (kFacts[t].term != static_cast<Term>(t)) return false;
      return true;
    }(),
    "in the order of Term");
constexpr std::string_view kScopeNames[] = {"global", "family",  "lineage",
                                            "engine", "release", "engine_on_family"};

template <typename E, size_t N, typename Name>
std::optional<E> parse_name(std::string_view text, const Name (&names)[N]) {
  for (size_t i = 0; i < N; ++i) {
    std::string_view known;
    if constexpr (std::is_same_v<Name, TermFact>) known = names[i].name;
    else known = names[i];
    if (known == text) return static_cast<E>(i);
  }
  return std::nullopt;
}

// A share cannot exceed the whole however the parts of its logarithm add up.
constexpr auto kIsShare = [] {
  std::array<bool, kTerms> share{};
  for (size_t t = 0; t < kTerms; ++t)
    share[t] = kFacts[t].unit == "share" || kFacts[t].unit.starts_with("of ");
  return share;
}();

// "v24.11" of "dgxc v24.11"; nothing where the release has a name instead of a number.
std::vector<int> version_of(std::string_view release) {
  release.remove_prefix(std::min(release.size(), release.rfind(' ') + 1));
  if (release.starts_with('v')) release.remove_prefix(1);
  std::vector<int> version;
  while (!release.empty()) {
    int part = 0;
    const auto [end, error] = std::from_chars(release.data(), release.data() + release.size(), part);
    if (error != std::errc()) return {};
    version.push_back(part);
    release.remove_prefix(static_cast<size_t>(end - release.data()));
    if (!release.empty() && release.front() != '.') return {};
    if (!release.empty()) release.remove_prefix(1);
  }
  return version;
}

constexpr std::string_view kReference = "H100";

std::vector<MeasuredCeiling> load_ceilings() {
  const CsvTable t("measured_ceilings.csv", catalog_file("measured_ceilings.csv"));
  std::vector<MeasuredCeiling> all;
  std::array<double, kTerms> reference{};
  for (size_t r = 0; r < t.rows(); ++r) {
    const auto term = parse_name<Term>(t.text(r, "term"), kFacts);
    if (!term) fail(ErrorKind::kData, "{}: unknown term '{}'", t.where(r), t.text(r, "term"));
    MeasuredCeiling c{.term = *term, .family = std::string(t.text(r, "family"))};
    c.measured = t.required_number(r, "measured"), c.peak = t.required_number(r, "peak");
    if (!(c.measured > 0 && c.peak > 0))
      fail(ErrorKind::kData, "{}: expected measured and peak above 0", t.where(r));
    c.reference = c.family == kReference;
    if (c.reference) reference[static_cast<size_t>(c.term)] = c.measured / c.peak;
    all.push_back(c);
  }
  for (MeasuredCeiling& c : all) {
    const double of = reference[static_cast<size_t>(c.term)];
    // nothing to compare with: the share itself over the prior
    c.over_reference = c.measured / c.peak / (of > 0 ? of : kFacts[static_cast<size_t>(c.term)].prior);
  }
  return all;
}

}  // namespace

const std::vector<MeasuredCeiling>& measured_ceilings() {
  static const std::vector<MeasuredCeiling> all = load_ceilings();
  return all;
}

Efficiency Efficiency::from_logs(const std::array<double, kTerms>& logs) {
  Efficiency e;
  for (size_t t = 0; t < kTerms; ++t) {
    e.value[t] = std::exp(logs[t]);
    if (kIsShare[t]) e.value[t] = std::min(e.value[t], 1.0);
  }
  return e;
}

std::string_view name_of(Term term) { return kFacts[static_cast<size_t>(term)].name; }
std::string_view name_of(Scope scope) { return kScopeNames[static_cast<size_t>(scope)]; }

EfficiencyTable::EfficiencyTable() {
  for (int t = 0; t < kTerms; ++t)
    set(static_cast<Term>(t), Scope::kGlobal, "", std::log(kFacts[static_cast<size_t>(t)].prior));
  // What a chip reaches in isolation, over what the reference chip does: where a family starts from.
  for (const MeasuredCeiling& c : measured_ceilings())
    if (!c.reference) set(c.term, Scope::kFamily, c.family, std::log(c.over_reference));
  // No published row tells of processors: they multiply narrow matrices nearly as fast as wide ones, and there is
  // no device apart that kernels are launched on and waited for, only calls.
  set(Term::kTile, Scope::kFamily, "CPU-Zen5", std::log(0.1));
  set(Term::kKernel, Scope::kFamily, "CPU-Zen5", std::log(0.1));
  set(Term::kHostLayer, Scope::kFamily, "CPU-Zen5", std::log(0.01));
  set(Term::kFixed, Scope::kFamily, "CPU-Zen5", std::log(0.02));
}

void EfficiencyTable::set(Term term, Scope scope, std::string_view key, double log_value) {
  by_key_[static_cast<size_t>(scope)][std::string(key)][static_cast<size_t>(term)] = log_value;
  for (EfficiencyRow& row : rows_)
    if (row.term == term && row.scope == scope && row.key == key) {
      row.log_value = log_value;
      return;
    }
  rows_.push_back({term, scope, std::string(key), log_value});
}

double EfficiencyTable::get(Term term, Scope scope, std::string_view key) const {
  const auto& map = by_key_[static_cast<size_t>(scope)];
  const auto found = map.find(std::string(key));
  return found == map.end() ? 0 : found->second[static_cast<size_t>(term)];
}

Efficiency EfficiencyTable::resolve(std::string_view family, std::string_view engine,
                                    std::string_view release) const {
  std::array<double, kTerms> logs{};
  auto add = [&](Scope scope, const std::string& key) {
    const auto& map = by_key_[static_cast<size_t>(scope)];
    if (const auto found = map.find(key); found != map.end())
      for (size_t t = 0; t < kTerms; ++t) logs[t] += found->second[t];
  };
  add(Scope::kGlobal, "");
  add(Scope::kFamily, std::string(family));
  add(Scope::kLineage, habits_of(engine).lineage);
  add(Scope::kEngine, std::string(engine));
  for (const std::string& earlier : releases_within(releases_of(engine), engine, release))
    add(Scope::kRelease, earlier);
  add(Scope::kEngineOnFamily, fmt::format("{}|{}", engine, family));
  return Efficiency::from_logs(logs);
}

bool EfficiencyTable::knows_engine(std::string_view engine) const {
  return by_key_[static_cast<size_t>(Scope::kEngine)].contains(std::string(engine));
}

std::vector<std::string> EfficiencyTable::releases_of(std::string_view engine) const {
  std::vector<std::string> releases;
  const std::string prefix = std::string(engine) + " ";
  for (const auto& [key, terms] : by_key_[static_cast<size_t>(Scope::kRelease)])
    if (key.starts_with(prefix)) releases.push_back(key);
  std::sort(releases.begin(), releases.end());
  return releases;
}

std::vector<std::string> releases_within(const std::vector<std::string>& known, std::string_view engine,
                                         std::string_view release) {
  const std::vector<int> last = version_of(release);
  std::vector<std::string> within;
  for (const std::string& candidate : known) {
    const std::vector<int> version = version_of(candidate);
    const bool of_engine =
        candidate.size() > engine.size() && candidate.starts_with(engine) && candidate[engine.size()] == ' ';
    const bool earlier = !version.empty() && (release.empty() || (!last.empty() && version <= last));
    if (of_engine && (candidate == release || earlier)) within.push_back(candidate);
  }
  return within;
}

EfficiencyTable EfficiencyTable::parse(std::string_view csv, std::string_view name) {
  const CsvTable t{std::string(name), csv};
  EfficiencyTable table;
  for (size_t r = 0; r < t.rows(); ++r) {
    const auto term = parse_name<Term>(t.text(r, "term"), kFacts);
    const auto scope = parse_name<Scope>(t.text(r, "scope"), kScopeNames);
    if (!term || !scope)
      fail(ErrorKind::kData, "{}: unknown term '{}' or scope '{}'", t.where(r), t.text(r, "term"),
           t.text(r, "scope"));
    const double value = t.required_number(r, "value");
    if (!(value > 0)) fail(ErrorKind::kData, "{}: value is {}, expected above 0", t.where(r), value);
    table.set(*term, *scope, t.text(r, "key"), std::log(value));
  }
  return table;
}

std::string EfficiencyTable::to_csv() const {
  std::vector<EfficiencyRow> sorted = rows_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const EfficiencyRow& a, const EfficiencyRow& b) {
    if (a.scope != b.scope) return a.scope < b.scope;
    if (a.key != b.key) return a.key < b.key;
    return a.term < b.term;
  });
  std::string out = "term,scope,key,value,unit,what\n";
  for (const EfficiencyRow& row : sorted) {
    const TermFact& fact = kFacts[static_cast<size_t>(row.term)];
    const double value = std::exp(row.log_value);
    if (row.scope != Scope::kGlobal && std::abs(row.log_value) < 5e-4) continue;  // says nothing
    out += fmt::format("{},{},{},{:.5g},{},\"{}\"\n", fact.name, name_of(row.scope), row.key, value,
                       row.scope == Scope::kGlobal ? fact.unit : "factor", fact.what);
  }
  return out;
}

const EfficiencyTable& fitted_efficiency() {
  static const EfficiencyTable table =
      EfficiencyTable::parse(catalog_file("efficiency.csv"), "efficiency.csv");
  return table;
}

}  // namespace stoker::plan
