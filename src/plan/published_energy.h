// plan/published_energy.h
// Published energy, accelerator-hours, emissions and costs of whole runs, each worked out again from the
// inputs that its source printed and from the planner's own models, and compared. Every row gives a result
// for every quantity that it states; one that cannot be worked out says which input is missing. Input the
// columns of energy.csv (docs/planner.md), or of mlperf_power.csv: measured node power Inputs       kPrinted:
// hours, watts, PUE, g/kWh and $/h come from the row (or, for an identity within it, from its other
//              cells); kAssumed: at least one came from the planner's figures; the text names it
// Errors       Data: a file with neither schema, a cell that is no number
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/csv.h"
#include "plan/figures.h"

namespace stoker::plan {

struct EnergyCheck {
  std::string run,
      quantity;  // "accelerator-hours", "energy MWh", "tCO2e", "cost USD", "node W per accelerator"
  double published = 0;
  std::optional<double> predicted;
  double error = 0;  // (predicted - published) / published
  bool inputs_printed = false;
  std::string how;  // the formula with its numbers; or why there is no prediction
};

struct EnergyValidation {
  std::vector<EnergyCheck> checks;
  size_t predicted = 0, printed = 0, printed_within_10_percent = 0;
  double median_abs_error = 0, p90_abs_error = 0;                  // of all that were predicted
  double printed_median_abs_error = 0, printed_max_abs_error = 0;  // of those whose inputs are printed
};

// Watts of an accelerator at its maximum by any of its names; nullopt when unknown.
using MaximumWatts = std::function<std::optional<double>(std::string_view accelerator)>;
// Accelerator-hours of training `parameters_B` on `tokens_B`, or why not.
struct HoursEstimate {
  std::optional<double> hours;
  std::string how;
};
using PlannedHours =
    std::function<HoursEstimate(std::string_view run, double parameters_B, double tokens_B,
                                std::string_view accelerator, std::optional<double> accelerators)>;

std::vector<EnergyCheck> check_energy(const CsvTable& table, const FigureBook& figures,
                                      const MaximumWatts& watts, const PlannedHours& planned);
EnergyValidation summarise(std::vector<EnergyCheck> checks);

}  // namespace stoker::plan
