#include "eval/sampler.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/error.h"

namespace stoker::eval {
namespace {

constexpr std::array<float, 4> kLogits{0.0f, 2.0f, 1.0f, 2.0f};

std::array<int, 4> count(const SamplerSettings& s, int draws) {
  std::array<int, 4> n{};
  for (int i = 0; i < draws; ++i) n[static_cast<size_t>(sample(kLogits, s, static_cast<uint64_t>(i)))]++;
  return n;
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) { EXPECT_EQ(sample(kLogits, {0, 0, 1, 1}, 0), 1); }

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  constexpr int kDraws = 20000;
  const auto n = count({1, 0, 1, 7}, kDraws);
  double total = 0;
  for (float x : kLogits) total += std::exp(x);
  for (size_t i = 0; i < 4; ++i) {
    const double p = std::exp(kLogits[i]) / total;
    EXPECT_NEAR(n[i], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)));  // five standard deviations
  }
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  const auto k = count({1, 2, 1, 7}, 1000);
  EXPECT_EQ(k[0] + k[2], 0);
  EXPECT_GT(k[1], 300);
  EXPECT_GT(k[3], 300);
  const auto p = count({1, 0, 0.3, 7}, 1000);  // the most likely alone has 0.4
  EXPECT_EQ(p[1], 1000);
  EXPECT_THROW(validate({-1, 0, 1, 1}), Error);
  EXPECT_THROW(validate({1, 0, 0, 1}), Error);
}

}  // namespace
}  // namespace stoker::eval
