#include "plan/search.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace stoker::plan {
namespace {

std::vector<int64_t> divisors_up_to(int64_t n, int64_t most) {
  std::vector<int64_t> found;
  for (int64_t d = 1; d <= std::min(n, most); ++d)
    if (n % d == 0) found.push_back(d);
  return found;
}

// Chunks per pipeline worker that leave less than a tenth of the workers' places empty.
std::vector<int64_t> chunk_counts(int64_t layers, int64_t pipeline, int64_t most) {
  if (pipeline == 1) return {1};
  std::vector<int64_t> found;
  for (int64_t v = 1; v <= most && v * pipeline <= layers; ++v) {
    const int64_t pieces = v * pipeline, places = (layers + pieces - 1) / pieces * pieces;
    if (10 * (places - layers) <= layers) found.push_back(v);
  }
  return found;
}

std::vector<int64_t> micro_batches(int64_t per_worker, int64_t most) {
  std::vector<int64_t> found = divisors_up_to(per_worker, std::min<int64_t>(most, 8));
  for (int64_t d = 16; d <= most && per_worker % d == 0; d *= 2) found.push_back(d);
  return found;
}

bool can_split(const ModelSpec& m, int64_t tensor, bool equal_parts) {
  if (m.heads % tensor || (m.ffn % tensor && !m.experts)) return false;
  return m.kv_heads % tensor == 0 || (!equal_parts && tensor % m.kv_heads == 0);
}

// Calls visit(run) for every combination that divides; `run` is reused between calls.
template <typename Visit>
class Enumeration {
 public:
  Enumeration(const PlanInput& input, const SearchSpace& space, Visit visit)
      : in_(input), space_(space), visit_(visit), run_(input.run) {}

  void all() {
    if (!space_.vary_layout) return with_layout(in_.run.layout);
    const HardwareSpec& hw = in_.hardware;
    const ModelSpec& m = in_.run.model;
    const int64_t world = hw.accelerators;
    int64_t max_tensor = space_.max_tensor;
    if (!max_tensor) {
      const int64_t domain = hw.levels.empty() ? 1 : hw.levels.front().accelerators;
      max_tensor = std::min<int64_t>(64, domain == 0 ? world : domain);
    }
    for (int64_t tensor : divisors_up_to(m.heads, max_tensor)) {
      if (world % tensor || !can_split(m, tensor, space_.equal_parts)) continue;
      for (int64_t pipeline : divisors_up_to(world / tensor, std::min(space_.max_pipeline, m.layers)))
        for (int64_t context : divisors_up_to(world / (tensor * pipeline), space_.max_context))
          with_data(tensor, pipeline, context, world / (tensor * pipeline * context));
    }
  }

 private:
  void with_data(int64_t tensor, int64_t pipeline, int64_t context, int64_t data) {
    const ModelSpec& m = in_.run.model;
    if (in_.run.batch.sequence_length % (context * tensor) || in_.run.batch.global_batch % data) return;
    const int64_t peers = data * context * tensor;
    LayoutSpec l = in_.run.layout;
    l.tensor = tensor, l.pipeline = pipeline, l.context = context, l.data = data;
    l.expert_tensor = m.experts ? 1 : 0;
    l.zero_group = 0;
    l.sequence_parallel = tensor > 1;
    for (int64_t expert : m.experts ? divisors_up_to(m.experts, peers) : std::vector<int64_t>{1}) {
      if (peers % expert) continue;
      l.expert = expert;
      for (int64_t chunks : chunk_counts(m.layers, pipeline, space_.max_virtual_stages)) {
        if (space_.equal_parts && m.layers % (pipeline * chunks)) continue;
        l.virtual_stages = chunks;
        l.schedule = chunks > 1 ? PipelineSchedule::kInterleaved : PipelineSchedule::kOneForwardOneBackward;
        for (int64_t zero = 0; zero <= (pipeline > 1 ? 2 : 3); ++zero) {
          if (!space_.vary_zero && zero != in_.run.layout.zero_stage) continue;
          if (zero && data * context == 1 && space_.vary_zero) continue;
          l.zero_stage = zero;
          with_layout(l);
        }
      }
    }
  }

  void with_layout(const LayoutSpec& l) {
    const BatchSpec& b = in_.run.batch;
    if (b.global_batch % l.data) return;
    const int64_t per_worker = b.global_batch / l.data;
    run_.layout = l;
    for (int64_t micro : space_.vary_micro_batch ? micro_batches(per_worker, space_.max_micro_batch)
                                                 : std::vector<int64_t>{b.micro_batch}) {
      if (per_worker % micro) continue;
      if (l.virtual_stages > 1 && (per_worker / micro) % l.pipeline) continue;
      run_.batch.micro_batch = micro;
      if (!space_.vary_recompute) {
        visit_(run_);
        continue;
      }
      for (Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
        // fused attention keeps no scores: there is nothing to select
        if (recompute == Recompute::kSelective && run_.flash_attention) continue;
        run_.recompute = recompute;
        visit_(run_);
      }
    }
  }

  const PlanInput& in_;
  const SearchSpace& space_;
  Visit visit_;
  RunSpec run_;
};

template <typename Visit>
void for_each_layout(const PlanInput& input, const SearchSpace& space, Visit visit) {
  Enumeration<Visit>(input, space, visit).all();
}

double nine_digits(double v) {
  if (!(std::isfinite(v) && v > 0)) return v;
  const double unit = std::pow(10, std::floor(std::log10(v)) - 8);
  return std::round(v / unit) * unit;
}

}  // namespace

LayoutRank rank_of(Seconds step, Bytes peak) {
  return {nine_digits(step.value()), nine_digits(peak.value())};
}

std::vector<RunSpec> enumerate_layouts(const PlanInput& input, const SearchSpace& space) {
  std::vector<RunSpec> all;
  for_each_layout(input, space, [&](const RunSpec& run) { all.push_back(run); });
  return all;
}

SearchResult explore(const PlanInput& input, const SearchSpace& space, size_t keep) {
  return explore(input, space, keep,
                 fitted_efficiency().resolve(input.hardware.accelerator.family, input.engine, input.release));
}

SearchResult explore(const PlanInput& input, const SearchSpace& space, size_t keep, const Efficiency& e) {
  validate(input.run.model);
  validate(input.hardware);
  if (keep == 0) fail(ErrorKind::kUsage, "search was asked to keep 0 layouts: ask for one or more");
  SearchResult result;
  struct Candidate {
    LayoutRank rank;
    RunSpec run;
  };
  std::vector<Candidate> best;  // sorted, at most `keep`
  Bytes least = Bytes(1e300);
  RunSpec leanest;
  PlanInput at = input;
  for_each_layout(input, space, [&](const RunSpec& run) {
    ++result.considered;
    at.run = run;
    // Time is the cheaper question: what is slower than the best so far need not be asked whether it fits.
    const Seconds step = predict_step_time(at, e).total;
    if (best.size() == keep && rank_of(step, Bytes(0)) > best.back().rank) {
      ++result.slower_by_bound;
      return;
    }
    const MemoryUse memory = predict_memory(at, e);
    if (memory.peak < least) least = memory.peak, leanest = run;
    if (memory.verdict == Verdict::kOutOfMemory) {
      ++result.did_not_fit;
      return;
    }
    const LayoutRank rank = rank_of(step, memory.peak);
    const auto place =
        std::upper_bound(best.begin(), best.end(), rank,
                         [](const LayoutRank& mine, const Candidate& c) { return mine < c.rank; });
    best.insert(place, Candidate{rank, run});
    if (best.size() > keep) best.pop_back();
  });
  if (result.considered == 0)
    fail(ErrorKind::kUsage,
         "no layout divides: {} accelerators, {} layers, {} heads, run.global_batch {}{}. Choose a global "
         "batch with more divisors in common with the accelerators{}",
         input.hardware.accelerators, input.run.model.layers, input.run.model.heads,
         input.run.batch.global_batch,
         space.vary_micro_batch ? "" : fmt::format(", run.micro_batch {}", input.run.batch.micro_batch),
         space.vary_micro_batch ? "" : " and the micro-batch");
  for (Candidate& c : best) {
    at.run = c.run;
    result.best.push_back({std::move(c.run), predict(at, e)});
  }
  if (result.best.empty()) {
    at.run = leanest;
    result.least_memory = RankedLayout{leanest, predict(at, e)};
  }
  return result;
}

SearchResult search(const PlanInput& input, const SearchSpace& space, size_t keep) {
  SearchResult result = explore(input, space, keep);
  if (result.best.empty())
    fail(ErrorKind::kUsage,
         "none of {} layouts fits: the least needs {:.1f} GiB of each accelerator, {} has {:.1f} GiB. Use "
         "more accelerators, a smaller sequence or batch, or optimizer offload",
         result.considered, in_gibibytes(result.least_memory->prediction.memory.peak),
         input.hardware.accelerator.name, in_gibibytes(input.hardware.accelerator.memory));
  return result;
}

}  // namespace stoker::plan
