// parallel/pipeline_schedule.h
// In which order a pipeline worker does its forwards and backwards, and what it sends and receives on the way.
//   1f1b          min(P-1-s, K) forwards, then one forward and one backward in turn, then the remaining backwards
//   interleaved   the same over v chunks a worker, dealt in rounds of P micro-batches: a v-th of the bubble, more messages
//   zero-bubble   backward makes the input's gradient only, the weights' gradient waits and fills what would be idle time; a third
//                 of 1f1b's bubble for at most 2P-1-s micro-batches in flight
//   gpipe         all forwards, then all backwards: K micro-batches in flight
// Order        of every chunk's forwards, backwards and weight gradients is that of the micro-batches, whatever the schedule: so are
//              the bits of the gradient. Weights of a virtual rank are finished before the next one's backward begins (per_leaf
//              micro-batches each), because they share the buffer
// Pure: every worker computes the plan of every other. Errors: Usage through validate(LayoutSpec) before
// Source       Narayanan et al. 2019, 2021 (arXiv:2104.04473), Huang et al. 2018 (arXiv:1811.06965), Qi et al. 2023 (ZB-H1, arXiv:2401.10241)
#pragma once
#include <cstdint>
#include <vector>

#include "spec/layout_spec.h"

namespace stoker::parallel {

enum class PipelineWork { kForward, kBackward, kWeights };

struct PipelineAction {
  PipelineWork work = PipelineWork::kForward;
  int chunk = 0;  // of the worker: 0 .. virtual_stages - 1
  int64_t micro_batch = 0;
  bool operator==(const PipelineAction&) const = default;
};

struct PipelinePlan {
  std::vector<PipelineAction> actions;
  std::vector<int> slots;  // per chunk: the most micro-batches in flight; micro-batch m uses slot m % slots
};

PipelinePlan pipeline_plan(const LayoutSpec& layout, int64_t stage, int64_t micro_batches, int64_t per_leaf);

// Per action of worker `stage`: how many actions of the first worker are known to be done when this worker begins it, from the
// messages that it has received by then and that those had waited for.
std::vector<size_t> known_of_first(const LayoutSpec& layout, const std::vector<PipelinePlan>& plans,
                                   int64_t stage);

// Seconds until the last worker is done and the share of worker-time that is idle, when each kind of work takes what is said and
// messages take no time. Fails (Internal) when the plans wait for one another.
struct PipelineTimes {
  double seconds = 0, idle = 0;
};
PipelineTimes simulate(const LayoutSpec& layout, const std::vector<PipelinePlan>& plans, double forward_s,
                       double backward_s, double weights_s);

}  // namespace stoker::parallel
