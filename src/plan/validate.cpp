#include "plan/validate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace stoker::plan {
namespace {

ErrorSummary summarise(const std::vector<const RowResult*>& rows, bool memory) {
  ErrorSummary s;
  s.rows = rows.size();
  std::vector<std::pair<double, double>> errors, logs;
  for (const RowResult* r : rows) {
    if (!(memory ? r->memory_compared : r->compared)) continue;
    const double e = memory ? r->memory_error : r->error;
    errors.emplace_back(e, 1);
    s.mean += e;
    logs.emplace_back(memory ? std::log(r->predicted_peak_gb / *r->run->peak_memory_gb)
                             : std::log(r->predicted / r->run->measured),
                      1);
  }
  s.compared = errors.size();
  if (errors.empty()) return s;
  s.mean /= static_cast<double>(errors.size());
  s.median = weighted_quantile(errors, 0.5);
  s.p90 = weighted_quantile(errors, 0.9);
  s.bias = weighted_quantile(logs, 0.5);
  return s;
}

RowResult judge(const PublishedRun& run, const EfficiencyTable& table) {
  RowResult r;
  r.run = &run;
  r.reason = run.reason;
  if (!run.reason.empty()) return r;
  try {
    const PlanInput& in = run.input;
    const Efficiency e = table.resolve(in.hardware.accelerator.family, in.engine, in.release);
    const MemoryUse memory = memory_of_published(run, e);
    const Bytes peak = published_peak(run, memory);
    r.predicted_peak_gb = run.memory_in_gib ? in_gibibytes(peak) : peak.value() / 1e9;
    for (int k = 0; k < kFootprintKinds; ++k)
      r.memory_gib[static_cast<size_t>(k)] =
          in_gibibytes(memory.footprint.sum(static_cast<FootprintKind>(k)));
    r.predicted_oom = memory.verdict == Verdict::kOutOfMemory;
    r.fit_judged = true;
    if (run.peak_memory_gb) {
      r.memory_error = std::abs(r.predicted_peak_gb / *run.peak_memory_gb - 1);
      r.memory_compared = true;
    }
    r.step = published_step_terms(run, e);
    const Seconds step = r.step.total;
    if (run.metric == Metric::kNone) {
      if (!run.failed) r.reason = "only memory was measured";
      return r;
    }
    r.predicted = predicted_in_metric(run, step);
    r.error = std::abs(r.predicted / run.measured - 1);
    r.compared = std::isfinite(r.error);
    if (!r.compared) r.reason = "the prediction is not a finite number";
  } catch (const Error& error) {
    r.reason = error.what();
  }
  return r;
}

}  // namespace

MemoryUse memory_of_published(const PublishedRun& run, const Efficiency& e) {
  MemoryUse memory = predict_memory(run.input, e);
  if (run.recompute_stated || memory.verdict == Verdict::kFits || run.input.run.recompute == Recompute::kFull)
    return memory;
  // Its recomputation was not published: the run will have recomputed what it had to.
  PlanInput in = run.input;
  in.run.recompute = Recompute::kFull;
  MemoryUse least = predict_memory(in, e);
  if (least.verdict != Verdict::kFits) return least;
  memory.peak = memory.capacity;  // somewhere between: just enough
  memory.verdict = Verdict::kTight;
  return memory;
}

Bytes published_peak(const PublishedRun& run, const MemoryUse& memory) {
  return run.allocated_only ? memory.peak - memory.footprint.sum(FootprintKind::kWorkspace) : memory.peak;
}

double weighted_quantile(std::vector<std::pair<double, double>> values, double q) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  double total = 0;
  for (const auto& [v, w] : values) total += w;
  double before = 0;
  for (const auto& [v, w] : values) {
    before += w;
    if (before >= q * total) return v;
  }
  return values.back().first;
}

Validation validate_runs(const std::vector<PublishedRun>& runs, const EfficiencyTable& table) {
  std::vector<RowResult> rows;
  rows.reserve(runs.size());
  for (const PublishedRun& run : runs) rows.push_back(judge(run, table));
  return summarise_results(std::move(rows));
}

Validation summarise_results(std::vector<RowResult> rows) {
  Validation v;
  v.rows = std::move(rows);
  std::vector<const RowResult*> all;
  std::map<std::string, std::vector<const RowResult*>> source, hardware, kind;
  for (const RowResult& r : v.rows) {
    all.push_back(&r);
    source[r.run->source_group].push_back(&r);
    const std::string& family = r.run->input.hardware.accelerator.family;
    hardware[family.empty() ? "unknown" : family].push_back(&r);
    kind[r.run->kind.empty() ? "unstated" : r.run->kind].push_back(&r);
    if (!r.fit_judged) continue;
    if (r.run->out_of_memory) ++v.failed, v.failed_called_oom += r.predicted_oom;
    else ++v.ran, v.ran_called_oom += r.predicted_oom;
  }
  v.all = summarise(all, false);
  v.memory = summarise(all, true);
  for (const auto& [name, group] : source) v.by_source[name] = summarise(group, false);
  for (const auto& [name, group] : hardware) v.by_hardware[name] = summarise(group, false);
  for (const auto& [name, group] : kind) v.by_kind[name] = summarise(group, false);

  std::vector<std::pair<double, double>> weighted;
  double weight = 0;
  for (const auto& [name, group] : source) {
    const double n = static_cast<double>(v.by_source[name].compared);
    for (const RowResult* r : group)
      if (r->compared) weighted.emplace_back(r->error, 1 / n), v.equal_sources.mean += r->error / n;
    if (n > 0) weight += 1, ++v.equal_sources.rows;
  }
  v.equal_sources.compared = weighted.size();
  if (weight > 0) {
    v.equal_sources.mean /= weight;
    v.equal_sources.median = weighted_quantile(weighted, 0.5);
    v.equal_sources.p90 = weighted_quantile(weighted, 0.9);
  }

  const double caught =
      v.failed ? static_cast<double>(v.failed_called_oom) / static_cast<double>(v.failed) : -1;
  const double passed = v.ran ? 1 - static_cast<double>(v.ran_called_oom) / static_cast<double>(v.ran) : -1;
  v.oom_balanced_accuracy = caught >= 0 && passed >= 0 ? (caught + passed) / 2
                            : caught >= 0              ? caught
                            : passed >= 0              ? passed
                                                       : std::numeric_limits<double>::quiet_NaN();
  return v;
}

}  // namespace stoker::plan
