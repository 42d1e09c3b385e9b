#include "plan/error_bands.h"

#include <gtest/gtest.h>

#include <cmath>

#include "plan/catalog.h"

namespace stoker::plan {
namespace {

PlanInput input_of(const char* hardware, const char* engine) {
  PlanInput in;
  in.run.model = find_model("llama3-8b").spec;
  in.run.batch = {64, 1, 8192};
  in.hardware = parse_hardware(hardware);
  in.run.layout.data = in.hardware.accelerators;
  in.run.layout.zero_stage = 1;
  in.engine = engine;
  return in;
}

TEST(ErrorBands, AreOfTheNarrowestKindThatIsKnown) {
  const ErrorBand known = error_band(input_of("h100:64", "dgxc"));
  EXPECT_EQ(known.group, "dgxc on H100, dense");
  EXPECT_GE(known.runs, 15u);
  const ErrorBand unknown = error_band(input_of("h100:64", ""));
  EXPECT_EQ(unknown.group, "other software on H100, dense");
  // What is known of the software makes an answer more certain, not less.
  EXPECT_LT(known.p90, unknown.p90);
  EXPECT_LE(known.median, known.p90);
}

TEST(ErrorBands, EveryPredictionCarriesOne) {
  for (const char* hardware : {"h100:64", "rtx-4090:1", "cpu:1", "tpu-v5p:64"}) {
    PlanInput in = input_of(hardware, "");
    const Prediction p = predict(in);
    EXPECT_GT(p.error_band, 0) << hardware;
    EXPECT_GE(p.error_band_p90, p.error_band) << hardware;
    EXPECT_FALSE(p.error_band_group.empty()) << hardware;
  }
}

// A table of forty rows of one kind, each a tenth off: its band is a tenth.
TEST(ErrorBands, AreTheErrorsThatWereFound) {
  std::vector<PublishedRun> runs(40);
  Validation v;
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i].input = input_of("h100:64", "dgxc");
    RowResult r;
    r.run = &runs[i];
    r.compared = true;
    r.error = i < 20 ? 0.1 : 0.3;
    v.rows.push_back(r);
  }
  bool found = false;
  for (const ErrorBand& b : error_bands(v, Validation{}))
    if (b.group == "dgxc on H100, dense") {
      found = true;
      EXPECT_EQ(b.runs, 40u);
      EXPECT_DOUBLE_EQ(b.median, 0.1);
      EXPECT_DOUBLE_EQ(b.p90, 0.3);
    }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace stoker::plan
