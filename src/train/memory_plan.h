// train/memory_plan.h
// What a worker of a run will take in its layout, from the same walks that allocate it; nothing is allocated here.
// Accuracy  the rows are exact; `program` (code, libraries, allocator slack) is a measured constant. The peak resident memory of a
//           run is within 5 % of total(): every run prints both when it ends, `./dev bench memory` and `./dev layouts` compare them
#pragma once
#include <string>
#include <vector>

#include "train/recipe.h"

namespace stoker::train {

struct MemoryRow {
  std::string what;
  size_t bytes;
};
struct MemoryPlan {
  std::vector<MemoryRow> rows;
  size_t total() const;
};

// Of worker `rank` of `workers`. Usage: they do not fill one replica, or the rank is a spare.
MemoryPlan memory_plan(const Recipe& recipe, int64_t workers = 1, int64_t rank = 0);

}  // namespace stoker::train
