#include "plan/calibrate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "plan/catalog.h"

namespace stoker::plan {
namespace {

PlanInput input_of(const char* model, int64_t rows, int64_t length) {
  PlanInput in;
  in.engine = "stoker";
  in.run.model = find_model(model).spec;
  in.run.batch = {rows, rows, length};
  in.run.precision = Precision::kBf16;
  in.hardware = parse_hardware("cpu:1");
  in.hardware.accelerator.family = "this-machine";
  return in;
}

// Steps of a machine whose products take 1.7 times and whose attention takes 3 times what the table says.
MeasuredStep slower(const char* model, int64_t rows, int64_t length) {
  MeasuredStep s;
  s.model = model;
  s.input = input_of(model, rows, length);
  EfficiencyTable truth = fitted_efficiency();
  truth.set(Term::kMatmul16, Scope::kFamily, "this-machine", std::log(1 / 1.7));
  truth.set(Term::kAttention, Scope::kFamily, "this-machine", std::log(1 / 3.0));
  const StepTime t =
      predict_step_time(s.input, truth.resolve("this-machine", s.input.engine, s.input.release));
  s.step_s = t.total.value();
  for (int k = 0; k < kStepTerms; ++k) {
    const double share = t.terms[static_cast<size_t>(k)] / t.total;
    const StepTerm term = static_cast<StepTerm>(k);
    const WorkKind kind = term == StepTerm::kMatmul        ? WorkKind::kProducts
                          : term == StepTerm::kAttention   ? WorkKind::kAttention
                          : term == StepTerm::kMemoryBound ? WorkKind::kElementwise
                          : term == StepTerm::kOptimizer   ? WorkKind::kOptimizer
                                                           : WorkKind::kRest;
    s.share[static_cast<size_t>(kind)] += share;
  }
  return s;
}

TEST(Calibrate, FindsTheMachineThatMadeTheMeasurements) {
  const Calibration c =
      calibrate(fitted_efficiency(), {slower("gpt2-124m", 4, 1024), slower("llama3-1b", 2, 512)});
  EXPECT_NEAR(c.table.get(Term::kMatmul16, Scope::kFamily, "this-machine"), std::log(1 / 1.7), 1e-3);
  EXPECT_NEAR(c.table.get(Term::kAttention, Scope::kFamily, "this-machine"), std::log(1 / 3.0), 1e-3);
  EXPECT_NEAR(c.table.get(Term::kPasses, Scope::kFamily, "this-machine"), 0, 1e-3);
  ASSERT_EQ(c.checks.size(), 2u);
  for (const CalibrationCheck& check : c.checks) {
    EXPECT_TRUE(check.held_out);
    EXPECT_NEAR(check.predicted_s / check.measured_s, 1, 0.01) << check.model;
  }
}

TEST(Calibrate, RefusesWhatIsNoMeasurement) {
  EXPECT_THROW(calibrate(fitted_efficiency(), {}), Error);
  MeasuredStep s = slower("gpt2-124m", 4, 1024);
  s.share[0] += 0.5;
  EXPECT_THROW(calibrate(fitted_efficiency(), {s}), Error);
  s = slower("gpt2-124m", 4, 1024);
  s.step_s = 0;
  EXPECT_THROW(calibrate(fitted_efficiency(), {s}), Error);
}

}  // namespace
}  // namespace stoker::plan
