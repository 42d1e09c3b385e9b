#include "plan/calibrate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace stoker::plan {
namespace {

using Times = std::array<double, kWorkKinds>;

WorkKind work_of(StepTerm term) {
  switch (term) {
    case StepTerm::kMatmul:
    case StepTerm::kRecompute:
      return WorkKind::kProducts;
    case StepTerm::kAttention:
      return WorkKind::kAttention;
    case StepTerm::kMemoryBound:
      return WorkKind::kElementwise;
    case StepTerm::kOptimizer:
      return WorkKind::kOptimizer;
    default:
      return WorkKind::kRest;
  }
}

Times predicted_times(const PlanInput& in, const EfficiencyTable& table) {
  const Efficiency e = table.resolve(in.hardware.accelerator.family, in.engine, in.release);
  const StepTime step = predict_step_time(in, e);
  Times out{};
  for (int t = 0; t < kStepTerms; ++t)
    out[static_cast<size_t>(work_of(static_cast<StepTerm>(t)))] += step.terms[static_cast<size_t>(t)].value();
  return out;
}

// The terms that carry a kind of work, and whether a larger value means less time.
struct Lever {
  Term term;
  bool rate;
};
std::vector<Lever> levers_of(WorkKind kind, Precision precision) {
  switch (kind) {
    case WorkKind::kProducts:
      return {{precision == Precision::kFp32 ? Term::kMatmul32 : Term::kMatmul16, true}};
    case WorkKind::kAttention:
      return {{Term::kAttention, true}};
    case WorkKind::kElementwise:
      return {{Term::kPasses, false}};
    case WorkKind::kOptimizer:
      return {{Term::kOptimizer, false}};
    case WorkKind::kRest:
      return {{Term::kFixed, false}, {Term::kHostLayer, false}};
  }
  return {};
}

EfficiencyTable fitted_to(const EfficiencyTable& start, const std::vector<const MeasuredStep*>& steps) {
  EfficiencyTable table = start;
  const PlanInput& first = steps.front()->input;
  const std::string& family = first.hardware.accelerator.family;
  for (int round = 0; round < 40; ++round) {
    double moved = 0;
    std::array<double, kWorkKinds> log_ratio{};
    std::array<int, kWorkKinds> seen{};
    for (const MeasuredStep* s : steps) {
      const Times predicted = predicted_times(s->input, table);
      for (size_t k = 0; k < kWorkKinds; ++k)
        if (s->share[k] > 0 && predicted[k] > 0)
          log_ratio[k] += std::log(s->share[k] * s->step_s / predicted[k]), ++seen[k];
    }
    for (size_t k = 0; k < kWorkKinds; ++k) {
      if (!seen[k]) continue;
      const double step = log_ratio[k] / seen[k];
      moved = std::max(moved, std::abs(step));
      for (const Lever& l : levers_of(static_cast<WorkKind>(k), first.run.precision))
        table.set(l.term, Scope::kFamily, family,
                  table.get(l.term, Scope::kFamily, family) + (l.rate ? -step : step));
    }
    if (moved < 1e-6) break;
  }
  return table;
}

double total(const Times& times) {
  double sum = 0;
  for (double t : times) sum += t;
  return sum;
}

struct Repeats {
  MeasuredStep median;
  double fastest_s = 0, slowest_s = 0;
  size_t steps = 0;
};

// Steps of one model and batch are repeats of one thing, in the order in which models came first.
std::vector<Repeats> repeats_of(const std::vector<MeasuredStep>& steps) {
  std::vector<std::vector<const MeasuredStep*>> groups;
  for (const MeasuredStep& s : steps) {
    auto same = [&s](const std::vector<const MeasuredStep*>& g) {
      return g.front()->model == s.model &&
             g.front()->input.run.batch.tokens() == s.input.run.batch.tokens() &&
             g.front()->input.run.batch.sequence_length == s.input.run.batch.sequence_length;
    };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) groups.push_back({&s});
    else found->push_back(&s);
  }
  std::vector<Repeats> out;
  for (auto& group : groups) {
    std::sort(group.begin(), group.end(), [](const auto* a, const auto* b) { return a->step_s < b->step_s; });
    out.push_back({*group[group.size() / 2], group.front()->step_s, group.back()->step_s, group.size()});
  }
  return out;
}

void check_step(const MeasuredStep& s) {
  double sum = 0;
  for (double share : s.share) {
    if (!(share >= -0.05 && share <= 1.05))
      fail(ErrorKind::kData,
           "{}: a share of the step is {}, expected 0 to 1: give `stoker bench step --json`", s.model, share);
    sum += share;
  }
  if (!(s.step_s > 0) || std::abs(sum - 1) > 0.02)
    fail(ErrorKind::kData,
         "{}: a step of {} s whose shares sum to {}: expected a time above 0 and shares that sum to 1",
         s.model, s.step_s, sum);
}

}  // namespace

Calibration calibrate(const EfficiencyTable& start, const std::vector<MeasuredStep>& steps) {
  if (steps.empty()) fail(ErrorKind::kData, "nothing was measured: expected at least one step");
  for (const MeasuredStep& s : steps) check_step(s);
  const std::vector<Repeats> measured = repeats_of(steps);
  std::vector<const MeasuredStep*> all;
  for (const Repeats& r : measured) all.push_back(&r.median);
  Calibration out{fitted_to(start, all), {}, {}};
  const Times before = predicted_times(all.front()->input, start),
              after = predicted_times(all.front()->input, out.table);
  for (size_t k = 0; k < kWorkKinds; ++k) out.factor[k] = before[k] > 0 ? after[k] / before[k] : 1;
  for (const Repeats& r : measured) {
    std::vector<const MeasuredStep*> others;
    for (const MeasuredStep* o : all)
      if (o->model != r.median.model) others.push_back(o);
    const bool held_out = !others.empty();
    const EfficiencyTable table = held_out ? fitted_to(start, others) : out.table;
    out.checks.push_back({r.median.model, r.median.step_s, total(predicted_times(r.median.input, table)),
                          r.fastest_s, r.slowest_s, r.steps, held_out});
  }
  return out;
}

double calibrated_band(const Calibration& calibration) {
  double error = 0, spread = 0;
  for (const CalibrationCheck& c : calibration.checks)
    error = std::max(error, std::abs(c.error())), spread = std::max(spread, c.spread());
  return error + spread;
}

WorkKind work_kind(std::string_view part) {
  // The loss is computed on the head's output and predicted with it.
  if (part.starts_with("matrix products") || part == "loss") return WorkKind::kProducts;
  if (part == "attention") return WorkKind::kAttention;
  if (part.starts_with("norms") || part == "embedding") return WorkKind::kElementwise;
  if (part == "optimizer") return WorkKind::kOptimizer;
  return WorkKind::kRest;
}

std::string_view to_string(WorkKind kind) {
  constexpr std::string_view kNames[] = {"matrix products", "attention", "norms and activations", "optimizer",
                                         "rest"};
  return kNames[static_cast<size_t>(kind)];
}

}  // namespace stoker::plan
