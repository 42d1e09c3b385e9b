// plan/published_failures.h
// Published failure statistics against the failure model: how often, how far apart, how much of the time was
// training. A cluster's own log is left out of the rates' spread before it is predicted; the itemised log, from
// which the rates come, is marked.
// Columns     cluster_or_run, scale, window, category, cause, count, metric, value, unit (docs/planner.md).
// Errors      Data: a column is missing. Rows that state no rate, count or share of time give their reason.
#pragma once
#include <string>
#include <vector>

#include "plan/band.h"
#include "plan/csv.h"

namespace stoker::plan {

struct FailureCheck {
  std::string run, quantity, unit;
  std::string published_text;  // as printed: ">90", "~1", "205"
  double published = 0;
  bool at_least = false;   // ">90": the prediction must not be below
  Band<double> predicted;  // nine of ten clusters lie in it
  bool in_band = false;
  bool own_log = false;  // the rates come from this run
  std::string reason;    // not empty: not predicted
};

std::vector<FailureCheck> check_failures(const CsvTable& table);

}  // namespace stoker::plan
