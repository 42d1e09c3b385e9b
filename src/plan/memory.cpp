// Memory of the fullest worker, and whether it fits.
#include <algorithm>

#include "plan/catalog.h"
#include "plan/predict.h"

namespace stoker::plan {
namespace {

// A loss on whole logits is the framework's own: 16-bit logits, their 32-bit copy, log-probabilities, both gradients,
// 16 bytes. One split over the vocabulary keeps the 32-bit copy and works in place: about half.
constexpr double kWholeLogits = 2;

FootprintOptions options_of(const PlanInput& in, const Efficiency& e) {
  FootprintOptions o;
  o.style = habits_of(in.engine).style();
  o.style.split_scale = e[Term::kActivation];
  o.style.whole_scale = e[Term::kActivationWhole];
  o.style.score_scale = e[Term::kScores];
  o.style.logits_bytes = e[Term::kLogits] * (o.style.logits_split ? 1 : kWholeLogits);
  o.workspace = Bytes(e[Term::kWorkspace]);
  return o;
}

// Activations and logits are scaled where the table is made; here what an engine holds besides the weights'
// bytes.
void scale(Footprint& f, const Efficiency& e) {
  for (FootprintRow& row : f.rows)
    if (row.kind == FootprintKind::kParameters || row.kind == FootprintKind::kGradients ||
        row.kind == FootprintKind::kOptimizer || row.kind == FootprintKind::kCommunication)
      row.bytes *= e[Term::kState];
}

// Before the first step, where an engine loads the whole model into every worker and then cuts it up.
Bytes loading_peak(const PlanInput& in, const Footprint& f) {
  if (in.run.layout.zero_stage != 3 || !habits_of(in.engine).loads_whole) return Bytes(0);
  const Bytes shard = f.sum(FootprintKind::kParameters);
  return shard * static_cast<double>(in.run.layout.zero_shards() + 1) + f.sum(FootprintKind::kWorkspace);
}

constexpr double kTightShare = 0.94;  // the 6 % that peak memory is predicted within

}  // namespace

MemoryUse predict_memory(const PlanInput& in, const Efficiency& e) {
  MemoryUse best;
  FootprintOptions options = options_of(in, e);
  const int64_t last = in.run.layout.pipeline - 1;
  for (int64_t stage : {int64_t{0}, last}) {
    options.pipeline_stage = stage;
    Footprint f = footprint(in.run, options);
    scale(f, e);
    const Bytes peak = std::max(f.peak(), loading_peak(in, f));
    if (stage == 0 || peak > best.peak) {
      best.peak = peak;
      best.phase = f.peak_phase();
      best.stage = stage;
      best.footprint = std::move(f);
    }
    if (last == 0) break;
  }
  best.capacity = in.hardware.accelerator.memory * e[Term::kUsable];
  best.verdict = best.peak > best.capacity                 ? Verdict::kOutOfMemory
                 : best.peak > best.capacity * kTightShare ? Verdict::kTight
                                                           : Verdict::kFits;
  return best;
}

}  // namespace stoker::plan
