#include "plan/fit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>

#include "base/error.h"
#include "base/hash.h"
#include "base/stop.h"
#include "plan/catalog.h"
#include "plan/validate.h"

namespace stoker::plan {
namespace {

// Which terms may differ at which scope, and how far: the standard deviation of the factor's logarithm.
// 0: not fitted there.
struct Freedom {
  Term term;
  double global, family, lineage, engine, release, engine_on_family;
};
constexpr Freedom kTimeFreedom[] = {
    {Term::kMatmul16, 0.03, 0.04, 0, 0, 0, 0},
    {Term::kMatmul8, 0.2, 0.15, 0.10, 0.10, 0.05, 0.06},
    {Term::kMatmul4, 0.3, 0.2, 0.10, 0.10, 0.05, 0.06},
    {Term::kAttention, 0.3, 0.2, 0.2, 0.2, 0, 0},
    {Term::kMemory, 0.2, 0.1, 0, 0, 0, 0},
    {Term::kPasses, 0.4, 0, 0.3, 0.3, 0.1, 0},
    {Term::kUnfusedAttention, 0.4, 0, 0.3, 0.3, 0, 0},
    {Term::kMisaligned, 0.5, 0, 0, 0, 0, 0},
    {Term::kScan, 0.5, 0, 0, 0, 0, 0},
    {Term::kQuantise, 0.4, 0, 0.2, 0.2, 0, 0},
    {Term::kKernel, 0.6, 0.3, 0.3, 0.3, 0, 0},
    {Term::kHostLayer, 0.6, 0.2, 0.6, 0.8, 0.6, 0.5},
    {Term::kHostExperts, 0.4, 0.2, 0.3, 0.3, 0.3, 0.2},
    {Term::kHostSoftmax, 0.3, 0, 0, 0, 0, 0},
    {Term::kHostAdapter, 0.5, 0, 0.3, 0.5, 0, 0},
    {Term::kHostTensor, 0.5, 0, 0.3, 0.3, 0, 0},
    {Term::kTile, 0.5, 0.1, 0.2, 0.3, 0, 0},
    {Term::kInside, 0.2, 0.2, 0.1, 0.1, 0, 0},
    {Term::kBetween, 0.3, 0.2, 0.3, 0.3, 0.1, 0.1},
    {Term::kLatency, 0.5, 0.2, 0.4, 0.4, 0, 0},
    {Term::kTensorExposed, 0.3, 0.1, 0.3, 0.3, 0.1, 0},
    {Term::kContextExposed, 0.5, 0, 0.4, 0.4, 0.1, 0},
    {Term::kExpertExposed, 0.4, 0.2, 0.3, 0.3, 0.1, 0},
    {Term::kExpertBetween, 0.3, 0, 0.2, 0.2, 0.2, 0},
    {Term::kExpertStart, 0.7, 0, 0.3, 0.4, 0.4, 0},
    {Term::kDataExposed, 0.5, 0, 0.5, 0.5, 0.1, 0.2},
    {Term::kPipelineExposed, 0.5, 0, 0.5, 0.5, 0, 0},
    {Term::kBubble, 0.1, 0, 0.2, 0.2, 0, 0},
    {Term::kExperts, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2},
    {Term::kRouting, 0.4, 0, 0.2, 0.3, 0.3, 0},
    {Term::kOptimizer, 0.3, 0, 0.4, 0.4, 0, 0},
    {Term::kFixed, 0.8, 0, 0.8, 0.8, 0.3, 0},
    {Term::kStraggler, 0.4, 0, 0.3, 0.3, 0.1, 0},
    {Term::kCompute, 0, 0.1, 0.15, 0.15, 0.08, 0.08},
    {Term::kAdapter, 0.1, 0, 0.1, 0.1, 0.05, 0},
};

constexpr Freedom kMemoryFreedom[] = {
    {Term::kState, 0, 0, 0.03, 0.03, 0, 0},
    {Term::kActivation, 0.15, 0, 0.2, 0.3, 0.15, 0},
    {Term::kActivationWhole, 0.3, 0, 0.4, 0.5, 0.3, 0},
    {Term::kScores, 0.4, 0, 0.4, 0.5, 0.3, 0},
    {Term::kLogits, 0.2, 0, 0.2, 0.4, 0.1, 0},
    {Term::kWorkspace, 0.4, 0.2, 0.3, 0.4, 0.3, 0.2},
};

double freedom(const Freedom& f, Scope scope) {
  switch (scope) {
    case Scope::kGlobal:
      return f.global;
    case Scope::kFamily:
      return f.family;
    case Scope::kLineage:
      return f.lineage;
    case Scope::kEngine:
      return f.engine;
    case Scope::kRelease:
      return f.release;
    case Scope::kEngineOnFamily:
      return f.engine_on_family;
  }
  return 0;
}

struct Parameter {
  Term term;
  Scope scope;
  std::string key;
  double prior = 0, deviation = 1, value = 0;
};

const std::string kUnnamed = "unnamed software of ";

using Keys = std::vector<std::string>;

enum class Observation { kTime, kPeakMemory, kRan, kOutOfMemory };

struct FitRow {
  const PublishedRun* run;
  Observation what = Observation::kTime;
  std::vector<uint32_t> parameters;    // that its prediction depends on
  std::array<double, kTerms> fixed{};  // log parts that are not fitted
  double weight = 1;
};

class Fitter {
 public:
  Fitter(const EfficiencyTable& start, std::span<const Freedom> freedoms, const FitOptions& options,
         const std::vector<PublishedRun>& runs);
  void add(const PublishedRun& run, Observation what, double weight);
  EfficiencyTable run();

 private:
  double log_error(const FitRow& row) const;  // of predicted over measured, or how far beyond the capacity
  double cost(const std::vector<double>& errors) const;
  std::vector<double> all_errors() const;
  bool step(double& damping);
  uint32_t parameter(const Freedom& f, Scope scope, const std::string& key);

  const EfficiencyTable& start_;
  std::span<const Freedom> freedoms_;
  FitOptions options_;
  std::vector<std::string> releases_;  // of all engines
  std::vector<Parameter> parameters_;
  std::map<std::tuple<int, int, std::string>, uint32_t> index_;
  std::vector<FitRow> rows_;
};

Fitter::Fitter(const EfficiencyTable& start, std::span<const Freedom> freedoms, const FitOptions& options,
               const std::vector<PublishedRun>& runs)
    : start_(start), freedoms_(freedoms), options_(options) {
  std::set<std::string> releases;
  for (const PublishedRun& run : runs)
    if (!run.input.release.empty()) releases.insert(run.input.release);
  releases_.assign(releases.begin(), releases.end());
}

uint32_t Fitter::parameter(const Freedom& f, Scope scope, const std::string& key) {
  const auto id = std::make_tuple(static_cast<int>(f.term), static_cast<int>(scope), key);
  if (const auto found = index_.find(id); found != index_.end()) return found->second;
  Parameter p{f.term, scope, key};
  p.deviation = freedom(f, scope);
  static const EfficiencyTable priors;
  p.prior = priors.get(f.term, scope, key);
  p.value = start_.get(f.term, scope, key);
  parameters_.push_back(p);
  return index_[id] = static_cast<uint32_t>(parameters_.size() - 1);
}

void Fitter::add(const PublishedRun& run, Observation what, double weight) {
  FitRow row;
  row.run = &run;
  row.what = what;
  row.weight = weight;
  const PlanInput& in = run.input;
  const std::string& family = in.hardware.accelerator.family;
  // Software that is only known by its lineage stands for itself, so that the lineage takes the mean of its
  // members; what it deviates by is not kept.
  const bool known = !in.engine.empty() && !in.engine.starts_with(kOtherSoftware);
  auto named = [](const std::string& key) { return key.empty() ? Keys{} : Keys{key}; };
  const Keys keys[] = {{""},
                       named(family),
                       named(habits_of(in.engine).lineage),
                       {known ? in.engine : kUnnamed + run.source_group},
                       known ? releases_within(releases_, in.engine, in.release) : Keys{},
                       known ? Keys{in.engine + "|" + family} : Keys{}};
  for (int t = 0; t < kTerms; ++t) {
    double fixed = 0;
    const Freedom* free = nullptr;
    for (const Freedom& f : freedoms_)
      if (static_cast<int>(f.term) == t) free = &f;
    for (int s = 0; s < kScopes; ++s) {
      const Scope scope = static_cast<Scope>(s);
      for (const std::string& key : keys[s])
        if (free && freedom(*free, scope) > 0) row.parameters.push_back(parameter(*free, scope, key));
        else fixed += start_.get(static_cast<Term>(t), scope, key);
    }
    row.fixed[static_cast<size_t>(t)] = fixed;
  }
  rows_.push_back(std::move(row));
}

// How far above 0, without the kink.
double hinge(double x) {
  constexpr double kSharpness = 25;
  const double z = kSharpness * x;
  return (z > 30 ? z : std::log1p(std::exp(z))) / kSharpness;
}

double Fitter::log_error(const FitRow& row) const {
  std::array<double, kTerms> logs = row.fixed;
  for (uint32_t p : row.parameters) logs[static_cast<size_t>(parameters_[p].term)] += parameters_[p].value;
  const Efficiency e = Efficiency::from_logs(logs);
  if (row.what == Observation::kTime) {
    const Seconds s = predicted_step(*row.run, e);
    return std::log(predicted_in_metric(*row.run, s) / row.run->measured);
  }
  PlanInput in = row.run->input;
  // Recomputation not published: that the run fitted tells only that it did with the most of it.
  if (row.what == Observation::kRan && !row.run->recompute_stated) in.run.recompute = Recompute::kFull;
  if (row.what == Observation::kPeakMemory)
    return std::log(in_gibibytes(published_peak(*row.run, memory_of_published(*row.run, e))) /
                    *row.run->peak_memory_gb);
  const MemoryUse memory = predict_memory(in, e);
  const double beyond = std::log(memory.peak / memory.capacity);
  return row.what == Observation::kRan ? hinge(beyond) : -hinge(-beyond);
}

std::vector<double> Fitter::all_errors() const {
  std::vector<double> errors(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) errors[i] = log_error(rows_[i]);
  return errors;
}

double Fitter::cost(const std::vector<double>& errors) const {
  const double d = options_.robust;
  double c = 0;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const double r = errors[i] / d;
    c += rows_[i].weight * 2 * (std::sqrt(1 + r * r) - 1);
  }
  for (const Parameter& p : parameters_) {
    const double z = (p.value - p.prior) / p.deviation;
    c += z * z;
  }
  return c;
}

// Row i of a sparse matrix is columns[k], values[k] for k in [start[i], start[i + 1]).
struct SparseRows {
  std::vector<size_t> start{0};
  std::vector<uint32_t> columns;
  std::vector<double> values;
};

// Solves (J' W J + diagonal) x = b by conjugate gradients, preconditioned by the whole diagonal.
// An inexact solution is enough for the step of a damped fit: it is taken only when it lowers the cost.
std::vector<double> solve(const SparseRows& j, const std::vector<double>& w,
                          const std::vector<double>& diagonal, const std::vector<double>& b) {
  const size_t n = b.size();
  std::vector<double> x(n, 0), r = b, z(n), p(n), ap(n), scale = diagonal;
  for (size_t i = 0; i + 1 < j.start.size(); ++i)
    for (size_t k = j.start[i]; k < j.start[i + 1]; ++k)
      scale[j.columns[k]] += w[i] * j.values[k] * j.values[k];
  auto sum = [n](const std::vector<double>& u, const std::vector<double>& v) {
    double s = 0;
    for (size_t k = 0; k < n; ++k) s += u[k] * v[k];
    return s;
  };
  for (size_t k = 0; k < n; ++k) z[k] = r[k] / scale[k];
  p = z;
  double rz = sum(r, z);
  const double goal = 1e-8 * rz;
  for (int iteration = 0; iteration < 300 && rz > goal; ++iteration) {
    for (size_t k = 0; k < n; ++k) ap[k] = diagonal[k] * p[k];
    for (size_t i = 0; i + 1 < j.start.size(); ++i) {
      double along = 0;
      for (size_t k = j.start[i]; k < j.start[i + 1]; ++k) along += j.values[k] * p[j.columns[k]];
      along *= w[i];
      for (size_t k = j.start[i]; k < j.start[i + 1]; ++k) ap[j.columns[k]] += j.values[k] * along;
    }
    const double step = rz / sum(p, ap);
    for (size_t k = 0; k < n; ++k) x[k] += step * p[k], r[k] -= step * ap[k];
    for (size_t k = 0; k < n; ++k) z[k] = r[k] / scale[k];
    const double next = sum(r, z);
    for (size_t k = 0; k < n; ++k) p[k] = z[k] + next / rz * p[k];
    rz = next;
  }
  return x;
}

bool Fitter::step(double& damping) {
  const size_t n = parameters_.size();
  const std::vector<double> errors = all_errors();
  const double before = cost(errors);
  std::vector<double> gradient(n, 0), weights(rows_.size());
  constexpr double kNudge = 1e-3;
  const double d = options_.robust;
  SparseRows slopes;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const FitRow& row = rows_[i];
    const double r = errors[i] / d;
    const double w = weights[i] = row.weight / (d * d * std::sqrt(1 + r * r));
    // Rows see a term's parts only through their sum: one derivative per term serves every scope.
    std::array<double, kTerms> known{};
    std::array<bool, kTerms> done{};
    for (const uint32_t column : row.parameters) {
      Parameter& p = parameters_[column];
      const size_t t = static_cast<size_t>(p.term);
      if (!done[t]) {
        const double kept = p.value;
        p.value = kept + kNudge;
        known[t] = (log_error(row) - errors[i]) / kNudge;
        p.value = kept;
        done[t] = true;
      }
      if (known[t] == 0) continue;
      slopes.columns.push_back(column);
      slopes.values.push_back(known[t]);
      gradient[column] += w * known[t] * errors[i];
    }
    slopes.start.push_back(slopes.columns.size());
  }
  for (size_t k = 0; k < n; ++k) {
    const Parameter& p = parameters_[k];
    gradient[k] += (p.value - p.prior) / (p.deviation * p.deviation);
  }
  std::vector<double> kept(n), diagonal(n);
  for (size_t k = 0; k < n; ++k) kept[k] = parameters_[k].value;
  for (int attempt = 0; attempt < 8; ++attempt) {
    // Damped in units of the priors: directions that only the priors hold stay free to move.
    for (size_t k = 0; k < n; ++k) {
      const double precision = 1 / (parameters_[k].deviation * parameters_[k].deviation);
      diagonal[k] = precision * (1 + damping);
    }
    const std::vector<double> x = solve(slopes, weights, diagonal, gradient);
    for (size_t k = 0; k < n; ++k) {
      const double limit = 0.5;
      parameters_[k].value = kept[k] - std::clamp(x[k], -limit, limit);
    }
    const double after = cost(all_errors());
    if (after < before) {
      damping = std::max(1e-3, damping / 4);
      return before - after > 3e-5 * before;
    }
    damping = std::max(damping * 5, 1e-3);
  }
  for (size_t k = 0; k < n; ++k) parameters_[k].value = kept[k];
  return false;
}

EfficiencyTable Fitter::run() {
  double damping = 0.3;
  for (int i = 0; i < options_.iterations; ++i) {
    if (stop_requested()) fail(ErrorKind::kCancelled, "fit stopped on request: nothing was written");
    if (!step(damping)) break;
  }
  EfficiencyTable table = start_;
  for (const Parameter& p : parameters_)
    if (!p.key.starts_with(kUnnamed)) table.set(p.term, p.scope, p.key, p.value);
  return table;
}

}  // namespace

EfficiencyTable fit_step_time(const std::vector<PublishedRun>& runs, const EfficiencyTable& start,
                              const FitOptions& options) {
  std::map<std::string, double> per_source;
  auto usable = [](const PublishedRun& r) { return r.reason.empty() && r.metric != Metric::kNone; };
  for (const PublishedRun& run : runs)
    if (usable(run)) per_source[run.source_group] += 1;
  // A source of n rows weighs sqrt(n); a row whose layout or shape had to be guessed tells half as much.
  auto weight = [&](const PublishedRun& r) {
    return 1 / std::sqrt(per_source[r.source_group]) / (1 + r.guesses);
  };
  double rows = 0, total = 0;
  for (const PublishedRun& run : runs)
    if (usable(run)) rows += 1, total += weight(run);
  // A typical row weighs one, so that a prior is worth about one row.
  Fitter fitter(start, kTimeFreedom, options, runs);
  for (const PublishedRun& run : runs)
    if (usable(run)) fitter.add(run, Observation::kTime, weight(run) * rows / total);
  return fitter.run();
}

EfficiencyTable fit_memory(const std::vector<PublishedRun>& runs, const EfficiencyTable& start,
                           const FitOptions& options) {
  double failed = 0, ran = 0;
  auto memory_known = [](const PublishedRun& r) { return r.reason.empty() && !r.allocated_only; };
  for (const PublishedRun& run : runs)
    if (memory_known(run)) (run.out_of_memory ? failed : ran) += 1;
  std::map<std::string, double> peaks;  // no collection of measured peaks weighs more than 64 rows
  for (const PublishedRun& run : runs)
    if (run.reason.empty() && run.peak_memory_gb) peaks[run.source_group] += 1;
  const double balance = failed > 0 && ran > 0 ? failed / ran : 1;  // both outcomes count alike
  Fitter fitter(start, kMemoryFreedom, options, runs);
  for (const PublishedRun& run : runs) {
    if (!run.reason.empty()) continue;
    // A measured peak says far more than that a run fitted.
    if (run.peak_memory_gb)
      fitter.add(run, Observation::kPeakMemory, 8 * std::min(1.0, 64 / peaks[run.source_group]));
    if (run.allocated_only) continue;  // small on purpose: that they fitted says nothing
    if (!memory_known(run)) continue;
    if (run.out_of_memory) fitter.add(run, Observation::kOutOfMemory, 1);
    else fitter.add(run, Observation::kRan, std::max(0.5, balance));
  }
  return fitter.run();
}

std::vector<HeldOutFold> group_folds(const std::vector<PublishedRun>& runs, int k, bool whole_models) {
  std::vector<HeldOutFold> folds(static_cast<size_t>(k));
  for (size_t i = 0; i < runs.size(); ++i)
    folds[hash64(whole_models ? runs[i].model_on_hardware : runs[i].configuration) % static_cast<uint64_t>(k)]
        .held_out.push_back(i);
  return folds;
}

std::vector<HeldOutFold> source_folds(const std::vector<PublishedRun>& runs) {
  std::map<std::string, HeldOutFold> by_source;
  for (size_t i = 0; i < runs.size(); ++i) by_source[runs[i].source_group].held_out.push_back(i);
  std::vector<HeldOutFold> folds;
  for (auto& [name, fold] : by_source) folds.push_back(std::move(fold));
  return folds;
}

}  // namespace stoker::plan
