// data/loader/sample_order.h
// In which order the rows of a dataset are shown: sample n is row order(n mod S) of epoch n / S, by keyed permutations.
// full          one permutation of all S rows an epoch: any row anywhere
// near          for shards that are fetched from afar and do not fit into the cache: runs of `run_rows` neighbouring rows are permuted
//               as wholes, and the rows of every `runs_together` runs among themselves. A batch then draws from runs_together places at a
//               time, each is fetched once an epoch, and what must be near at once is run_rows x runs_together rows
// Either is a bijection of each epoch, a pure function of (seed, S, settings, n), both ways in O(1); no state
#pragma once
#include <cstdint>

namespace stoker::data {

class SampleOrder {
 public:
  struct Near {
    uint64_t run_rows = 0, runs_together = 0;  // 0: full
  };
  SampleOrder() = default;
  SampleOrder(uint64_t seed, uint64_t rows, Near near = {0, 0});
  uint64_t rows() const { return rows_; }
  uint64_t row_of(uint64_t sample) const;
  uint64_t sample_of(uint64_t epoch, uint64_t row) const;

 private:
  struct Group {
    uint64_t number, first, rows;  // which, its first position in the epoch, how many rows it has
  };
  uint64_t runs() const;
  uint64_t short_by() const;  // rows that the last run lacks
  Group group(uint64_t number, uint64_t position_of_last) const;
  uint64_t seed_ = 0, rows_ = 0;
  Near near_;
};

}  // namespace stoker::data
