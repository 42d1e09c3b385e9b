// parallel/shard_plan.h
// What must move between workers when they change: everybody has some ranges of the flat parameter array and needs some, perhaps
// others. Which ranges a layout gives to whom is parallel/holdings.h.
// Pure.
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
