#include "plan/predict.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "plan/error_bands.h"

namespace stoker::plan {
namespace {

// Where the time of each term goes, for naming what binds.
Binding binding_of(StepTerm t, bool tensor_between) {
  switch (t) {
    case StepTerm::kMatmul:
    case StepTerm::kAttention:
    case StepTerm::kRecompute:
      return Binding::kArithmetic;
    case StepTerm::kMemoryBound:
      return Binding::kMemoryBandwidth;
    case StepTerm::kTensorComm:
    case StepTerm::kContextComm:
    case StepTerm::kExpertComm:
      return tensor_between ? Binding::kNetworkBetween : Binding::kNetworkInside;
    case StepTerm::kPipelineComm:
    case StepTerm::kDataComm:
    case StepTerm::kStragglers:
      return Binding::kNetworkBetween;
    case StepTerm::kBubble:
      return Binding::kBubble;
    case StepTerm::kHost:
    case StepTerm::kFixed:
      return Binding::kHost;
    case StepTerm::kOptimizer:
      return Binding::kOptimizer;
  }
  return Binding::kArithmetic;
}

constexpr int kBindings = 7;

}  // namespace

Prediction predict(const PlanInput& in, const Efficiency& e) {
  Prediction p;
  p.memory = predict_memory(in, e);
  p.step = predict_step_time(in, e);
  const Flops flops = model_flops_per_step(in);
  const double accelerators = static_cast<double>(in.hardware.accelerators);
  p.model_flops = flops / p.step.total / accelerators;
  // A narrow type that the accelerator lacks runs at its 16-bit rate.
  const AcceleratorSpec& a = in.hardware.accelerator;
  FlopsPerSecond peak = a.peak(in.run.precision);
  if (!(peak > FlopsPerSecond(0))) peak = std::max(a.bf16, a.fp16);
  p.mfu = p.model_flops / peak;
  p.tokens_per_second = Tokens(static_cast<double>(in.run.batch.tokens())) / p.step.total;

  const LayoutSpec& l = in.run.layout;
  const bool between = !in.hardware.levels.empty() && in.hardware.levels.front().accelerators != 0 &&
                       l.tensor * l.context > in.hardware.levels.front().accelerators;
  std::array<Seconds, kBindings> share{};
  for (int t = 0; t < kStepTerms; ++t)
    share[static_cast<size_t>(binding_of(static_cast<StepTerm>(t), between))] +=
        p.step.terms[static_cast<size_t>(t)];
  std::array<size_t, kBindings> order{};
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return share[x] > share[y]; });
  p.binds = static_cast<Binding>(order[0]);
  for (size_t i = 0; i < 3; ++i) p.next_limits[i] = static_cast<Binding>(order[i + 1]);
  const ErrorBand band = error_band(in);
  p.error_band = band.median, p.error_band_p90 = band.p90;
  p.error_band_group = band.group, p.error_band_runs = band.runs;
  return p;
}

Prediction predict(const PlanInput& in) {
  // The engine deals equal chunks only; a plan may leave the last stages a layer short, as published runs do.
  RunSpec dealt = in.run;
  const int64_t pieces =
      std::max<int64_t>(1, in.run.layout.pipeline) * std::max<int64_t>(1, in.run.layout.virtual_stages);
  if (dealt.model.layers >= pieces) dealt.model.layers = (dealt.model.layers + pieces - 1) / pieces * pieces;
  validate(dealt);
  validate(in.hardware);
  if (in.run.layout.world_size() != in.hardware.accelerators)
    fail(ErrorKind::kUsage, "layout {} needs {} workers but hardware has {} accelerators: make them equal",
         to_string(in.run.layout), in.run.layout.world_size(), in.hardware.accelerators);
  const Efficiency e = fitted_efficiency().resolve(in.hardware.accelerator.family, in.engine, in.release);
  return predict(in, e);
}

std::string_view to_string(StepTerm term) {
  constexpr std::string_view kNames[] = {
      "matmul",      "attention",     "memory_bound", "recompute", "host",      "tensor_comm", "context_comm",
      "expert_comm", "pipeline_comm", "data_comm",    "bubble",    "optimizer", "fixed",       "stragglers"};
  return kNames[static_cast<size_t>(term)];
}
std::string_view to_string(Binding binding) {
  constexpr std::string_view kNames[] = {
      "arithmetic", "memory bandwidth", "network inside the node", "network between nodes", "pipeline bubble",
      "host",       "optimizer"};
  return kNames[static_cast<size_t>(binding)];
}
std::string_view to_string(Verdict verdict) {
  constexpr std::string_view kNames[] = {"fits", "tight", "out of memory"};
  return kNames[static_cast<size_t>(verdict)];
}

}  // namespace stoker::plan
