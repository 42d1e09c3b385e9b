#include "train/bench_step.h"

#include <algorithm>
#include <map>

#include "base/random.h"
#include "base/stop.h"
#include "model/transformer.h"
#include "ops/update.h"
#include "optim/optimizer.h"
#include "spec/presets.h"
#include "train/peak.h"

namespace stoker::train {
namespace {

constexpr std::pair<const char*, const char*> kParts[] = {
    {"linear_forward", "matrix products, forward"},
    {"linear_backward_input", "matrix products, backward"},
    {"linear_backward_weight", "matrix products, backward"},
    {"attention_forward", "attention"},
    {"attention_backward", "attention"},
    {"norm_forward", "norms, positions, activations"},
    {"norm_backward", "norms, positions, activations"},
    {"rope_forward", "norms, positions, activations"},
    {"rope_backward", "norms, positions, activations"},
    {"activation_forward", "norms, positions, activations"},
    {"activation_backward", "norms, positions, activations"},
    {"cross_entropy", "loss"},
    {"embedding_forward", "embedding"},
    {"embedding_backward", "embedding"},
    {"sum_squares", "optimizer"},
    {"adamw", "optimizer"}};

std::vector<AnatomyPart> anatomy(const ops::Context& context, double step_s) {
  std::vector<AnatomyPart> parts;
  double named = 0;
  for (const auto& [op, part] : kParts) {
    const auto found = context.op_times().find(op);
    if (found == context.op_times().end()) continue;
    const double share = found->second.seconds / step_s;
    named += share;
    const auto same = std::find_if(parts.begin(), parts.end(),
                                   [&part = part](const AnatomyPart& p) { return p.what == part; });
    if (same == parts.end()) parts.push_back({part, share});
    else same->share += share;
  }
  parts.push_back({"other", 1 - named});
  return parts;
}

StepBenchModel bench_model(const std::string& preset, const StepBenchOptions& o) {
  const ModelSpec spec = model_preset(preset);
  ops::Context context;
  if (!o.kernels.empty()) context.force(o.kernels);
  nn::ParameterStore store(spec, o.precision, true);
  store.init(1, 0.02f);
  store.refresh(context);
  std::vector<optim::OptimizedParameter> parameters;
  for (const nn::Parameter& p : store.parameters())
    parameters.push_back({p.row.name, p.row.role, p.weight.value, p.weight.grad,
                          o.precision == Precision::kBf16 ? p.weight.compute : TensorView{}});
  optim::Optimizer optimizer(std::move(parameters), {});
  Transformer model(store, {o.rows, o.length, Recompute::kNone, true}, context);
  const int64_t n = o.rows * o.length;
  std::vector<int32_t> tokens, targets, positions;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>(random_u64({1, 1}, static_cast<uint64_t>(i)) %
                                          static_cast<uint64_t>(spec.vocab)));
    targets.push_back(static_cast<int32_t>(random_u64({1, 2}, static_cast<uint64_t>(i)) %
                                           static_cast<uint64_t>(spec.vocab)));
    positions.push_back(static_cast<int32_t>(i % o.length));
  }
  const MicroBatch batch{o.rows, o.length, tokens, targets, positions, {}};
  std::vector<std::pair<double, std::vector<AnatomyPart>>> timed;
  for (int s = 0; s <= o.steps; ++s) {
    if (stop_requested()) fail(ErrorKind::kCancelled, "bench step stopped");
    context.reset_times();
    const double begin = monotonic_s();
    store.zero_grads();
    model.forward_backward(batch, 1 / static_cast<float>(n));
    model.finish_gradients();
    const double norm = std::sqrt(ops::sum_squares(context, store.grads()));
    optimizer.update(context, {3e-4f, s + 1, norm > 1 ? static_cast<float>(1 / norm) : 1.0f});
    const double seconds = monotonic_s() - begin;
    if (s) timed.emplace_back(seconds, anatomy(context, seconds));
  }
  std::sort(timed.begin(), timed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto& median = timed[timed.size() / 2];
  return {preset, static_cast<double>(n) / median.first, 0, median.first, median.second};
}

}  // namespace

StepBench bench_step(const StepBenchOptions& options) {
  // The ceiling is measured before, between and after the models and the best counts: a busy moment must not flatter the MFU.
  StepBench result;
  ops::Context context;
  const auto measure = [&] {
    result.peak_flops = std::max(result.peak_flops, measure_peak(context, options.precision, 4));
  };
  measure();
  for (const std::string& preset : options.presets) {
    result.models.push_back(bench_model(preset, options));
    measure();
  }
  for (StepBenchModel& m : result.models)
    m.mfu = m.tokens_per_s * train_flops_per_token(model_preset(m.name), options.length) / result.peak_flops;
  return result;
}

}  // namespace stoker::train
