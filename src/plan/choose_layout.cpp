// The layouts that a request allows, tried one by one.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/error.h"
#include "plan/assess.h"
#include "spec/footprint.h"

namespace stoker::plan {
namespace {

std::vector<int64_t> divisors_up_to(int64_t n, int64_t most) {
  std::vector<int64_t> out;
  for (int64_t d = 1; d <= std::min(n, most); ++d)
    if (n % d == 0) out.push_back(d);
  return out;
}

bool adapts(const RunSpec& run) {
  return run.training == TrainingKind::kLora || run.training == TrainingKind::kQlora;
}

// Every candidate that divides is handed to `visit`.
template <typename Visit>
void enumerate(const PlanRequest& request, const Visit& visit) {
  const int64_t n = request.hardware.accelerators;
  const ModelSpec& m = request.run.model;
  const int64_t inside = request.hardware.levels.empty()
                             ? 1
                             : std::max<int64_t>(1, request.hardware.levels.front().accelerators);
  RunSpec run = request.run;
  const std::vector<Recompute> recomputes =
      request.fixed_recompute
          ? std::vector<Recompute>{run.recompute}
          : std::vector<Recompute>{Recompute::kNone, Recompute::kSelective, Recompute::kFull};
  const auto with_layout = [&](const LayoutSpec& layout) {
    run.layout = layout;
    const int64_t per_worker = run.batch.global_batch / layout.data;
    if (per_worker < 1 || run.batch.global_batch % layout.data) return;
    for (int64_t micro = 1; micro <= std::min<int64_t>(per_worker, 64); micro *= 2) {
      if (request.fixed_micro_batch) micro = request.run.batch.micro_batch;
      if (per_worker % micro == 0) {
        run.batch.micro_batch = micro;
        for (const Recompute recompute : recomputes) {
          run.recompute = recompute;
          visit(run);
        }
      }
      if (request.fixed_micro_batch) break;
    }
  };
  if (request.fixed_layout) {
    with_layout(request.run.layout);
    return;
  }
  for (const int64_t tensor : divisors_up_to(std::min(m.heads, n), inside)) {
    if (m.heads % tensor || m.kv_heads % tensor || n % tensor) continue;
    for (const int64_t pipeline : divisors_up_to(m.layers, std::min<int64_t>(n / tensor, 64))) {
      if (n % (tensor * pipeline)) continue;
      for (int64_t context = 1;
           context <= 16 && (context == 1 || run.batch.sequence_length / context >= 2048); context *= 2) {
        if (n % (tensor * pipeline * context) || run.batch.sequence_length % context) continue;
        const int64_t data = n / (tensor * pipeline * context);
        if (run.batch.global_batch % data) continue;
        for (const int64_t chunks : pipeline > 1 ? std::vector<int64_t>{1, 2, 4} : std::vector<int64_t>{1}) {
          if (m.layers % (pipeline * chunks)) continue;
          // Experts spread over the data and context workers.
          for (int64_t expert = 1; expert <= std::max<int64_t>(1, m.experts); expert *= 2) {
            if (m.experts > 0 && (m.experts % expert || (data * context * tensor) % expert)) continue;
            for (const int64_t zero : request.fixed_zero ? std::vector<int64_t>{request.run.layout.zero_stage}
                                      : data* context == 1 ? std::vector<int64_t>{0}
                                      : pipeline > 1       ? std::vector<int64_t>{1}
                                                           : std::vector<int64_t>{1, 2, 3}) {
              LayoutSpec l;
              l.tensor = tensor;
              l.pipeline = pipeline;
              l.context = context;
              l.data = data;
              l.expert = expert;
              l.expert_tensor = expert > 1 ? 1 : 0;
              l.zero_stage = zero;
              l.virtual_stages = chunks;
              l.sequence_parallel = tensor > 1;
              if (chunks > 1) l.schedule = PipelineSchedule::kInterleaved;
              with_layout(l);
            }
          }
        }
      }
    }
  }
}

}  // namespace

LayoutChoice choose_layouts(const PlanRequest& request, size_t keep) {
  const Efficiency efficiency =
      fitted_efficiency().resolve(request.hardware.accelerator.family, request.engine, request.release);
  LayoutChoice out;
  PlanInput input;
  input.hardware = request.hardware;
  input.engine = request.engine;
  input.release = request.release;
  input.score_scale = request.score_scale;
  std::string refused;
  enumerate(request, [&](const RunSpec& run) {
    try {
      validate(run.layout, run.model, run.batch);
    } catch (const Error& e) {
      refused = e.what();
      return;
    }
    ++out.considered;
    input.run = run;
    const MemoryUse memory = predict_memory(input, efficiency);
    if (memory.verdict == Verdict::kOutOfMemory) {
      if (out.fitting == 0 && (!out.least_memory || memory.peak < out.least_memory->prediction.memory.peak))
        out.least_memory = LayoutCandidate{run, predict(input, efficiency)};
      return;
    }
    ++out.fitting;
    LayoutCandidate candidate{run, predict(input, efficiency)};
    const auto slower = [](const LayoutCandidate& a, const LayoutCandidate& b) {
      return a.prediction.step.total < b.prediction.step.total;
    };
    out.best.insert(std::upper_bound(out.best.begin(), out.best.end(), candidate, slower), candidate);
    if (out.best.size() > keep) out.best.pop_back();
  });
  if (out.considered == 0) {
    if (!refused.empty()) fail(ErrorKind::kUsage, "{}", refused);
    fail(ErrorKind::kUsage,
         "no layout of {} accelerators divides: global batch {} sequences, {} heads, {} layers. Change "
         "run.global_batch or "
         "the count of accelerators",
         request.hardware.accelerators, request.run.batch.global_batch, request.run.model.heads,
         request.run.model.layers);
  }
  return out;
}

std::string describe(const RunSpec& run) {
  std::string text = to_string(run.layout);
  if (run.layout.virtual_stages > 1) text += fmt::format(" vp{}", run.layout.virtual_stages);
  if (run.layout.expert > 1) text += fmt::format(" ep{}", run.layout.expert);
  text += fmt::format(", micro-batch {}, recompute {}", run.batch.micro_batch, to_string(run.recompute));
  if (adapts(run)) text += fmt::format(", {} rank {}", to_string(run.training), run.lora_rank);
  return text;
}

std::string why_faster(const LayoutCandidate& winner, const LayoutCandidate& other) {
  const StepTime &a = winner.prediction.step, &b = other.prediction.step;
  std::vector<std::pair<double, int>> gains;
  for (int t = 0; t < kStepTerms; ++t)
    gains.emplace_back((b.terms[static_cast<size_t>(t)] - a.terms[static_cast<size_t>(t)]).value(), t);
  std::sort(gains.begin(), gains.end(), std::greater<>());
  const double ahead = b.total / a.total - 1;
  std::string text = fmt::format("{:.1f} % faster:", ahead * 100);
  int named = 0;
  for (const auto& [gain, t] : gains)
    if (gain > 0.002 * a.total.value() && named++ < 3)
      text += fmt::format(" {:.2f} s less {},", gain, to_string(static_cast<StepTerm>(t)));
  const auto& [loss, worst] = gains.back();
  if (loss < -0.002 * a.total.value())
    text += fmt::format(" for {:.2f} s more {}", -loss, to_string(static_cast<StepTerm>(worst)));
  else if (named == 0) text = "as fast, within 0.2 % in every term";
  if (text.ends_with(',')) text.pop_back();
  return text;
}

}  // namespace stoker::plan
