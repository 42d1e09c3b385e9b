#include "plan/search.h"

#include <algorithm>

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

// Calls visit(run) for every layout that divides; `run` is reused between calls.
template <typename Visit>
void for_each_layout(const PlanInput& input, const SearchSpace& space, Visit visit) {
  const HardwareSpec& hw = input.hardware;
  const ModelSpec& m = input.run.model;
  const int64_t world = hw.accelerators;
  int64_t max_tensor = space.max_tensor;
  if (!max_tensor) {
    const int64_t domain = hw.levels.empty() ? 1 : hw.levels.front().accelerators;
    max_tensor = std::min<int64_t>(64, domain == 0 ? world : domain);
  }
  RunSpec run = input.run;
  LayoutSpec& l = run.layout;
  BatchSpec& b = run.batch;
  for (int64_t tensor : divisors_up_to(m.heads, max_tensor)) {
    if (world % tensor || m.ffn % tensor || (m.kv_heads % tensor && tensor % m.kv_heads)) continue;
    for (int64_t pipeline : divisors_up_to(world / tensor, std::min(space.max_pipeline, m.layers))) {
      for (int64_t context : divisors_up_to(world / (tensor * pipeline), space.max_context)) {
        if (b.sequence_length % (context * tensor)) continue;
        const int64_t data = world / (tensor * pipeline * context);
        if (b.global_batch % data) continue;
        const std::vector<int64_t> experts =
            m.experts ? divisors_up_to(m.experts, data * context * tensor) : std::vector<int64_t>{1};
        for (int64_t expert : experts) {
          if ((data * context * tensor) % expert) continue;
          for (int64_t chunks : chunk_counts(m.layers, pipeline, space.max_virtual_stages))
            for (int64_t micro : divisors_up_to(b.global_batch / data, space.max_micro_batch)) {
              if (chunks > 1 && (b.global_batch / (data * micro)) % pipeline) continue;
              for (int64_t zero = 0; zero <= (pipeline > 1 ? 2 : 3); ++zero) {
                if (!space.vary_zero && zero != input.run.layout.zero_stage) continue;
                if (zero && data * context == 1) continue;
                for (Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
                  if (!space.vary_recompute && recompute != input.run.recompute) continue;
                  if (space.vary_recompute && recompute == Recompute::kSelective && run.flash_attention)
                    continue;
                  l = input.run.layout;
                  l.tensor = tensor, l.pipeline = pipeline, l.context = context, l.data = data;
                  l.expert = expert, l.expert_tensor = m.experts ? 1 : 0;
                  l.virtual_stages = chunks;
                  l.schedule =
                      chunks > 1 ? PipelineSchedule::kInterleaved : PipelineSchedule::kOneForwardOneBackward;
                  l.zero_stage = zero, l.zero_group = 0;
                  l.sequence_parallel = tensor > 1;
                  run.recompute = recompute;
                  b.micro_batch = micro;
                  visit(run);
                  b.micro_batch = input.run.batch.micro_batch;
                }
              }
            }
        }
      }
    }
  }
}

}  // namespace

std::vector<RunSpec> enumerate_layouts(const PlanInput& input, const SearchSpace& space) {
  std::vector<RunSpec> all;
  for_each_layout(input, space, [&](const RunSpec& run) { all.push_back(run); });
  return all;
}

SearchResult search(const PlanInput& input, const SearchSpace& space, size_t keep) {
  validate(input.run.model);
  validate(input.hardware);
  if (keep == 0) fail(ErrorKind::kUsage, "search was asked to keep 0 layouts: ask for one or more");
  const Efficiency e =
      fitted_efficiency().resolve(input.hardware.accelerator.family, input.engine, input.release);

  SearchResult result;
  struct Candidate {
    double seconds;
    RunSpec run;
  };
  std::vector<Candidate> best;  // sorted, at most `keep`
  Bytes least = Bytes(1e300);
  PlanInput at = input;
  for_each_layout(input, space, [&](const RunSpec& run) {
    ++result.considered;
    at.run = run;
    // Time is the cheaper question: what is slower than the best so far need not be asked whether it fits.
    const double seconds = predict_step_time(at, e).total.value();
    if (best.size() == keep && seconds >= best.back().seconds) {
      ++result.slower_by_bound;
      return;
    }
    const MemoryUse memory = predict_memory(at, e);
    least = std::min(least, memory.peak);
    if (memory.verdict == Verdict::kOutOfMemory) {
      ++result.did_not_fit;
      return;
    }
    const auto place = std::upper_bound(best.begin(), best.end(), seconds,
                                        [](double s, const Candidate& c) { return s < c.seconds; });
    best.insert(place, Candidate{seconds, run});
    if (best.size() > keep) best.pop_back();
  });
  if (result.considered == 0)
    fail(ErrorKind::kUsage,
         "no layout divides: {} accelerators, {} layers, {} heads, batch.global_batch {}. Choose a global "
         "batch with "
         "more divisors in common with the accelerators",
         input.hardware.accelerators, input.run.model.layers, input.run.model.heads,
         input.run.batch.global_batch);
  if (best.empty())
    fail(ErrorKind::kUsage,
         "none of {} layouts fits: the least needs {:.1f} GiB of each accelerator, {} has {:.1f} GiB. Use "
         "more "
         "accelerators, a smaller sequence or batch, or optimizer offload",
         result.considered, in_gibibytes(least), input.hardware.accelerator.name,
         in_gibibytes(input.hardware.accelerator.memory));
  for (Candidate& c : best) {
    at.run = c.run;
    result.best.push_back({std::move(c.run), predict(at, e)});
  }
  return result;
}

}  // namespace stoker::plan
