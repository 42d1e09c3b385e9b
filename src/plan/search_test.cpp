#include "plan/search.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "plan/assess.h"
#include "plan/catalog.h"

namespace stoker::plan {
namespace {

PlanInput input_for(const char* model, const char* hardware, BatchSpec batch) {
  PlanInput in;
  in.run.model = find_model(model).spec;
  in.run.batch = batch;
  in.hardware = parse_hardware(hardware);
  return in;
}

TEST(Search, FindsTheTrueOptimumOfSmallSpaces) {
  struct Case {
    const char *model, *hardware;
    BatchSpec batch;
  };
  for (const Case& c : {Case{"llama3-8b", "h100:16", {64, 1, 8192}},
                        {"llama2-13b", "a100:32", {256, 1, 4096}},
                        {"mixtral-8x7b", "b200:16", {128, 1, 4096}},
                        {"qwen3-30b-a3b", "h100:16", {64, 1, 4096}},
                        {"llama3-70b", "gb200:64", {128, 1, 8192}}}) {
    const PlanInput in = input_for(c.model, c.hardware, c.batch);
    const SearchResult found = search(in, {}, 3);
    // Brute force by the public door: validate, predict, keep what fits.
    std::vector<std::pair<LayoutRank, RunSpec>> ranked;
    int64_t considered = 0;
    for (const RunSpec& run : enumerate_layouts(in, {})) {
      PlanInput one = in;
      one.run = run;
      const Prediction p = predict(one);
      ++considered;
      if (p.memory.verdict != Verdict::kOutOfMemory)
        ranked.emplace_back(rank_of(p.step.total, p.memory.peak), run);
    }
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    EXPECT_EQ(found.considered, considered) << c.model;
    ASSERT_EQ(found.best.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const Prediction& p = found.best[i].prediction;
      EXPECT_EQ(rank_of(p.step.total, p.memory.peak), ranked[i].first) << c.model;
      EXPECT_EQ(describe(found.best[i].run), describe(ranked[i].second)) << c.model;
    }
    EXPECT_GT(considered, 50);
  }
}

TEST(Search, OfLayoutsAsFastTheOneThatNeedsLessMemoryWins) {
  const Seconds step(3.2);
  EXPECT_LT(rank_of(step, gibibytes(40)), rank_of(step, gibibytes(41)));
  EXPECT_LT(rank_of(step, gibibytes(70)), rank_of(step * 1.00000001, gibibytes(10)));
  // beyond nine digits it is rounding of sums, no difference
  EXPECT_LT(rank_of(step * (1 + 1e-12), gibibytes(40)), rank_of(step, gibibytes(41)));
}

TEST(Search, SaysWhatTheLeastNeedsWhenNothingFits) {
  try {
    search(input_for("llama3-405b", "a100:8", {8, 1, 8192}), {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("layouts fits: the least needs"), std::string::npos) << e.what();
  }
}

TEST(Search, SaysWhatDoesNotDivide) {
  try {
    search(input_for("llama3-8b", "h100:37", {9, 1, 8192}), {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("no layout divides: 37 accelerators"), std::string::npos)
        << e.what();
  }
}

TEST(Search, TheLargestPublishedRunIsPlannedWithAPipeline) {
  const SearchResult r = search(input_for("llama3-405b", "h100:16384", {2048, 1, 8192}), {});
  EXPECT_GT(r.considered, 500);
  EXPECT_GE(r.best[0].run.layout.tensor * r.best[0].run.layout.pipeline, 8);
  EXPECT_GT(r.best[0].prediction.mfu, 0.25);
  EXPECT_LT(r.best[0].prediction.mfu, 0.65);
}

}  // namespace
}  // namespace stoker::plan
