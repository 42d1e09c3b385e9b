// The layouts that a request allows, found by the search; and how they are told apart in words.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/error.h"
#include "plan/assess.h"
#include "plan/search.h"
#include "spec/footprint.h"

namespace stoker::plan {
LayoutChoice choose_layouts(const PlanRequest& request, size_t keep) {
  PlanInput input;
  input.run = request.run;
  input.hardware = request.hardware;
  input.engine = request.engine;
  input.release = request.release;
  input.score_scale = request.score_scale;
  input.scan_elements = request.scan_elements;
  SearchSpace space;
  space.vary_layout = !request.fixed_layout;
  space.vary_micro_batch = !request.fixed_micro_batch;
  space.vary_recompute = !request.fixed_recompute;
  space.vary_zero = !request.fixed_zero;
  // Stoker deals every stage the same layers; published engines leave the last ones short.
  space.equal_parts = request.engine == "stoker";
  if (request.fixed_layout) {
    RunSpec run = request.run;
    const int64_t pieces = run.layout.pipeline * run.layout.virtual_stages;
    if (!request.fixed_micro_batch) run.batch.micro_batch = 1;
    if (!space.equal_parts && run.model.layers >= pieces)
      run.model.layers = (run.model.layers + pieces - 1) / pieces * pieces;
    validate(run.layout, run.model, run.batch);
  }
  SearchResult found = explore(input, space, keep);
  LayoutChoice out;
  out.considered = static_cast<size_t>(found.considered);
  out.did_not_fit = static_cast<size_t>(found.did_not_fit);
  out.best = std::move(found.best);
  out.least_memory = std::move(found.least_memory);
  return out;
}

std::optional<int64_t> enough_accelerators(const PlanRequest& request) {
  constexpr int64_t kMost = int64_t{1} << 20;
  if (request.fixed_layout) return std::nullopt;
  PlanRequest larger = request;
  int64_t& n = larger.hardware.accelerators;
  while (n <= kMost / 2) {
    n *= 2;
    try {
      if (!choose_layouts(larger, 1).best.empty()) return n;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUsage) throw;
      return std::nullopt;  // no layout divides the batch over so many
    }
  }
  return std::nullopt;
}

std::string describe(const RunSpec& run) {
  std::string text = to_string(run.layout);
  text += fmt::format(", micro-batch {}, recompute {}", run.batch.micro_batch, to_string(run.recompute));
  if (trains_adapters(run)) text += fmt::format(", {} rank {}", to_string(run.training), run.lora_rank);
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
