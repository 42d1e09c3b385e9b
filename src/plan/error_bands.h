// plan/error_bands.h
// How wrong the planner was on published runs that it had not seen, by kind of run: the band that an answer
// carries.
// Known software   errors of runs whose configuration was held out of the fit, of the narrowest group with
//                  enough runs: engine on hardware, engine, hardware, all; each dense, experts or adapters.
// Other software   errors of runs whose whole source was held out: nothing of that engine was known.
// Numbers          relative, absolute value; median and 90th percentile. They do not hold for a run that is
//                  unlike any published one: larger clusters, newer hardware.
// Source           catalog/error_bands.csv, written by `stoker plan fit --bands`
#pragma once
#include <string>
#include <vector>

#include "plan/predict.h"
#include "plan/validate.h"

namespace stoker::plan {

struct ErrorBand {
  std::string group;  // "megatron-bridge on H100, dense"
  size_t runs = 0;    // that the errors were taken over
  double median = 0, p90 = 0;
};

ErrorBand error_band(const PlanInput& input);  // of the built-in table

// The table's rows from two held-out validations, and as text.
std::vector<ErrorBand> error_bands(const Validation& configurations, const Validation& sources);
std::string error_bands_csv(const std::vector<ErrorBand>& bands);

}  // namespace stoker::plan
