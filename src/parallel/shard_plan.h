// parallel/shard_plan.h
// Which worker holds which part of the flat parameter array, and what must move when the workers change.
//   Stage 0: every worker holds everything. Stage 1: worker r owns shard r and mirrors shard r-1 (cyclic): it makes the same
//   update of it, so when one worker dies its shard is in its neighbour's memory, at the same step, without any copying.
//   Cuts lie on multiples of kShardUnit, the block of ops::sum_squares, so norms add up the same way for any worker count.
// Pure. Errors: Usage for counts below 1 or a stage that does not exist
#pragma once
#include <cstddef>
#include <vector>

namespace stoker::parallel {

inline constexpr size_t kShardUnit = 65536;

struct Range {
  size_t begin = 0, end = 0;
  size_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// workers + 1 rising offsets; units are dealt evenly, the first workers get the larger shares.
std::vector<size_t> shard_cuts(size_t elements, int workers);
Range owned_range(size_t elements, int workers, int rank);
// Disjoint, rising, not empty; owned and mirrored.
std::vector<Range> held_ranges(int zero_stage, size_t elements, int workers, int rank);

struct Move {
  int from = 0, to = 0;
  Range range;
  bool operator==(const Move&) const = default;
};
struct MovePlan {
  std::vector<Move> moves;  // in the order in which both ends carry them out
  std::vector<Range> lost;  // held by nobody: only a checkpoint has it
};
// held[r], wanted[r]: what rank r has (valid, same step) and what it needs. Every rank computes the same plan.
MovePlan plan_moves(const std::vector<std::vector<Range>>& held,
                    const std::vector<std::vector<Range>>& wanted);

}  // namespace stoker::parallel
