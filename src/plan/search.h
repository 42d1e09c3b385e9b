// plan/search.h
// Finds the fastest layout that fits: every combination of tensor, pipeline, context and expert parallelism,
// virtual stages, ZeRO stage, micro-batch and recomputation that divides. Exhaustive, so the first is the
// optimum of the model; what cannot win is skipped only by bounds that are proven (a test compares with brute
// force).
// Ties        as fast to nine digits: the one that needs less memory (to nine digits); then the one that is cut less,
//             in this order: tensor, pipeline, context, expert, virtual stages, ZeRO stage; then the smaller micro-batch
//             and the less recomputation, which is the order of the enumeration.
// Cost        a microsecond or two per layout; one thread.
// Errors      Usage: no layout divides, or none fits (says the least memory that any needs).
#pragma once
#include <compare>
#include <optional>
#include <vector>

#include "plan/predict.h"

namespace stoker::plan {

struct SearchSpace {
  int64_t max_tensor = 0;  // 0: the accelerators of a fast domain, at most 64
  int64_t max_pipeline = 64;
  int64_t max_context = 16;
  int64_t max_micro_batch = 64;  // every divisor up to 8, beyond that powers of two
  int64_t max_virtual_stages = 16;
  bool vary_zero = true;       // else the stage that is given
  bool vary_recompute = true;  // else as given
  bool vary_micro_batch = true;
  bool vary_layout = true;
  bool equal_parts = false;  // only layouts that every stage and rank gets the same share of
};

struct LayoutRank {
  double seconds = 0, memory = 0;  // nine digits of each
  auto operator<=>(const LayoutRank&) const = default;
};
LayoutRank rank_of(Seconds step, Bytes peak);

struct RankedLayout {
  RunSpec run;
  Prediction prediction;
};

struct SearchResult {
  std::vector<RankedLayout> best;            // fastest first
  std::optional<RankedLayout> least_memory;  // where none fits: the nearest miss
  int64_t considered = 0;                    // combinations that divide
  int64_t did_not_fit = 0;
  int64_t slower_by_bound =
      0;  // fitted, but a lower bound of their time showed that they are not among the best
};

// `input.run.layout` and micro-batch are what is searched for; the rest of `input` is kept.
SearchResult search(const PlanInput& input, const SearchSpace& space, size_t keep = 3);
// The same where nothing fitting is an answer: then `best` is empty and `least_memory` is set.
SearchResult explore(const PlanInput& input, const SearchSpace& space, size_t keep);
SearchResult explore(const PlanInput& input, const SearchSpace& space, size_t keep,
                     const Efficiency& efficiency);

// Every candidate of the space, in a fixed order: for brute-force checks.
std::vector<RunSpec> enumerate_layouts(const PlanInput& input, const SearchSpace& space);

}  // namespace stoker::plan
