// plan/assess.h
// One plan from end to end: layout, step, days, failures, energy, money and what is learned, each with its
// band and the terms that it is made of. Bands        step time by the error that validation found for this
// kind of run (90th percentile); the rest by the
//              figures' ranges and by simulation. mid is the answer, low and high are what to prepare for.
// Cost         one layout search, one simulation of at most `trials` runs, eight priced paths: under a second
// Errors       Usage: nothing fits (the nearest miss is named), impossible settings
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "plan/energy.h"
#include "plan/failures.h"
#include "plan/money.h"
#include "plan/plan_file.h"
#include "plan/predict.h"
#include "plan/scaling_laws.h"
#include "plan/search.h"

namespace stoker::plan {

using LayoutCandidate = RankedLayout;  // layout, micro-batch, recomputation, ZeRO filled in

struct LayoutChoice {
  std::vector<LayoutCandidate> best;            // fastest first, those that fit
  std::optional<LayoutCandidate> least_memory;  // where none fits
  size_t considered = 0, did_not_fit = 0;       // slower ones were not asked whether they fit
};
// All layouts of the request's hardware that divide, or the one that it fixes. `keep`: how many of the best
// to return.
LayoutChoice choose_layouts(const PlanRequest& request, size_t keep = 3);

struct Limit {
  std::string what;  // "deadline", "budget", "power", "memory", "data"
  bool met = true;
  std::string text;  // both sides with their numbers
};

struct Assessment {
  PlanRequest request;
  LayoutChoice layouts;
  LayoutCandidate chosen;  // the best, or the one that needs least memory where nothing fits
  bool fits = true;
  double parameters = 0, active_parameters = 0, steps = 0;
  Band<Seconds> step;
  Band<Seconds> work;  // without failures
  GoodputResult goodput;
  Band<Seconds> wall;                    // failures included: mid is the mean
  Seconds wall_p50, wall_p90, wall_p99;  // at the mid step time
  double checkpoint_bytes = 0;
  Recovery recovery;
  PowerDraw draw;
  double utilisation = 0;  // share of time computing, as the power model takes it
  Band<double> cap_slowdown = Band<double>::exactly(1);
  EnergyUse energy;
  Band<double> pue;
  GridRegion grid;
  RackPlan racks;
  std::vector<PathCost> paths;  // in the order of kAllPaths
  size_t path = 0;              // of the request's in `paths`
  Returns learned;
  std::vector<Limit> limits;
  std::vector<std::string> warnings;
  const PathCost& cost() const { return paths[path]; }
};

struct AssessOptions {
  int trials = 1000;
  uint64_t seed = 1;
  bool all_paths = true;  // otherwise only the request's
};

// What the plan says to those who price it.
MoneyInput money_input(const Assessment& assessment);

Assessment assess(const PlanRequest& request, const AssessOptions& options = {});
Assessment assess_with(const PlanRequest& request, LayoutChoice layouts, const AssessOptions& options);

// Where a request's model does not fit: the fewest accelerators, doubled from the request's, on which some layout
// does; none where the request fixes its layout or 2^20 accelerators are not enough. One search a doubling.
std::optional<int64_t> enough_accelerators(const PlanRequest& request);

// Why the first candidate beats the second: the terms that differ most, in words.
std::string why_faster(const LayoutCandidate& winner, const LayoutCandidate& other);
std::string describe(const RunSpec& run);  // "dp128 tp8 pp1 zero1 sp, micro-batch 2, recompute selective"

}  // namespace stoker::plan
