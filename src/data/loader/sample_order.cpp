#include "data/loader/sample_order.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"

namespace stoker::data {
namespace {
constexpr uint64_t kEpochStream = 0x4c4f41444552;  // "LOADER"
constexpr uint64_t kRunStream = 0x52554e53;        // "RUNS"

uint64_t epoch_key(uint64_t seed, uint64_t epoch) { return random_u64({seed, kEpochStream}, epoch); }
}  // namespace

SampleOrder::SampleOrder(uint64_t seed, uint64_t rows, Near near) : seed_(seed), rows_(rows), near_(near) {
  STOKER_CHECK(rows >= 1);
  near_.run_rows = std::min(near_.run_rows, rows);
  // One group, or groups of one row: the full permutation says the same.
  if (near_.run_rows == 0 || near_.runs_together == 0 || near_.runs_together >= runs()) near_ = {0, 0};
}

uint64_t SampleOrder::runs() const { return (rows_ + near_.run_rows - 1) / near_.run_rows; }
uint64_t SampleOrder::short_by() const { return runs() * near_.run_rows - rows_; }

// Runs at positions [number * K, (number + 1) * K) of the permuted runs. The run that is short may be anywhere among them, and groups
// behind it begin that much earlier.
SampleOrder::Group SampleOrder::group(uint64_t number, uint64_t position_of_last) const {
  const uint64_t k = near_.runs_together, first_run = number * k, last_run = std::min(first_run + k, runs());
  const uint64_t first = first_run * near_.run_rows - (position_of_last < first_run ? short_by() : 0);
  const bool holds_last = first_run <= position_of_last && position_of_last < last_run;
  return {number, first, (last_run - first_run) * near_.run_rows - (holds_last ? short_by() : 0)};
}

uint64_t SampleOrder::row_of(uint64_t sample) const {
  const uint64_t epoch = sample / rows_, at = sample % rows_, key = epoch_key(seed_, epoch);
  if (near_.run_rows == 0) return KeyedPermutation(key, rows_).permute(at);
  const KeyedPermutation order(random_u64({key, kRunStream}, 0), runs());
  const uint64_t position_of_last = order.unpermute(runs() - 1), width = near_.runs_together * near_.run_rows;
  Group g = group(std::min(at / width, (runs() - 1) / near_.runs_together), position_of_last);
  if (at >= g.first + g.rows) g = group(g.number + 1, position_of_last);
  const KeyedPermutation within(random_u64({key, kRunStream}, 1 + g.number), g.rows);
  uint64_t index = within.permute(at - g.first);
  // The rows of a group are numbered run by run, in permuted order; those of the short run come last.
  const uint64_t first_run = g.number * near_.runs_together;
  const bool holds_last = g.rows % near_.run_rows != 0;
  uint64_t position = first_run + index / near_.run_rows;
  index %= near_.run_rows;
  if (holds_last) {
    const uint64_t final = std::min(first_run + near_.runs_together, runs()) - 1;
    if (position == final) position = position_of_last;
    else if (position == position_of_last) position = final;
  }
  return order.permute(position) * near_.run_rows + index;
}

uint64_t SampleOrder::sample_of(uint64_t epoch, uint64_t row) const {
  STOKER_CHECK(row < rows_, "row {} of {}", row, rows_);
  const uint64_t before = checked_mul(epoch, rows_, "epoch"), key = epoch_key(seed_, epoch);
  if (near_.run_rows == 0)
    return checked_add(before, KeyedPermutation(key, rows_).unpermute(row), "sample number");
  const KeyedPermutation order(random_u64({key, kRunStream}, 0), runs());
  const uint64_t position_of_last = order.unpermute(runs() - 1);
  uint64_t position = order.unpermute(row / near_.run_rows);
  const Group g = group(position / near_.runs_together, position_of_last);
  const uint64_t first_run = g.number * near_.runs_together;
  if (g.rows % near_.run_rows != 0) {
    const uint64_t final = std::min(first_run + near_.runs_together, runs()) - 1;
    if (position == final) position = position_of_last;
    else if (position == position_of_last) position = final;
  }
  const uint64_t index = (position - first_run) * near_.run_rows + row % near_.run_rows;
  const KeyedPermutation within(random_u64({key, kRunStream}, 1 + g.number), g.rows);
  return checked_add(before, g.first + within.unpermute(index), "sample number");
}

}  // namespace stoker::data
