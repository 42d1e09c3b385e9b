// plan/published_ops.h
// Published measurements of single operations (matrix products by size, collectives by payload) against the
// planner's op model: is its form right, before any run is predicted?
// Method      Of each series (one machine and type, or one machine, collective and group) the largest sets the
//             rate and, of collectives, the smallest the start. Every other row is predicted. Tile, kernel time
//             and memory share are those of catalog/efficiency.csv.
// Columns     products: system, dtype, m, n, k, TFLOPs. Collectives: system, n_gpus, collective, algorithm,
//             payload_bytes, busbw_GBps.
// Errors      Data: a column is missing or a cell is no number. A row of unknown hardware gives its reason.
#pragma once
#include <string>
#include <vector>

#include "plan/csv.h"

namespace stoker::plan {

struct OpCheck {
  std::string system, what;  // "fp8 4096x4096x4096", "all_reduce of 1048576 B over 8"
  double measured_s = 0, predicted_s = 0, error = 0;  // error: predicted / measured - 1
  bool sets_a_rate = false;                           // used, not predicted
  std::string reason;                                 // not empty: not predicted
};

std::vector<OpCheck> check_products(const CsvTable& table);
std::vector<OpCheck> check_collectives(const CsvTable& table);

struct OpSummary {
  size_t rows = 0, predicted = 0;
  double median = 0, p90 = 0;  // of the absolute error of what was predicted
};
OpSummary summarise(const std::vector<OpCheck>& checks);

}  // namespace stoker::plan
