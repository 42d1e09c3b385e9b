// plan/calibrate.h
// This machine's own efficiencies from its own measured steps: what share of its measured peak each kind of
// work reaches.
// In           steps with their wall time and its shares by kind of work, as `stoker bench step --json` prints;
//              of several of one model the median counts and the rest say how far this machine wanders
// Method       each kind's efficiency is scaled by the geometric mean of measured over predicted time, until
//              it stands still; five numbers, whatever the count of steps. Nothing is fitted per model.
// Check        each step predicted by a calibration that has not seen its model, where there are two or more
// Errors       Data: a step without time, or shares that are no shares
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "plan/efficiency.h"
#include "plan/predict.h"

namespace stoker::plan {

enum class WorkKind { kProducts, kAttention, kElementwise, kOptimizer, kRest };
inline constexpr int kWorkKinds = 5;

struct MeasuredStep {
  std::string model;
  PlanInput input;  // hardware: the measured peak in place of the maker's
  double step_s = 0;
  std::array<double, kWorkKinds> share{};  // sums to 1
};

struct CalibrationCheck {
  std::string model;
  double measured_s = 0, predicted_s = 0;  // median; prediction
  double fastest_s = 0, slowest_s = 0;     // of the measured steps
  size_t steps = 1;
  bool held_out = false;
  double error() const { return predicted_s / measured_s - 1; }
  double spread() const { return (slowest_s - fastest_s) / (2 * measured_s); }  // half of it, of the median
};

struct Calibration {
  EfficiencyTable table;                    // `start` with the family's own factors
  std::array<double, kWorkKinds> factor{};  // time of each kind over what `start` said
  std::vector<CalibrationCheck> checks;
};

// The band of a calibrated answer: the largest error of a check and the largest spread beside it.
double calibrated_band(const Calibration& calibration);

Calibration calibrate(const EfficiencyTable& start, const std::vector<MeasuredStep>& steps);

// The kind of work that a part of a step's anatomy belongs to, by its name in the bench.
WorkKind work_kind(std::string_view part);
std::string_view to_string(WorkKind kind);

}  // namespace stoker::plan
