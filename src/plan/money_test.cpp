#include "plan/money.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace stoker::plan {
namespace {

MoneyInput h100s(int64_t n, double wall_h) {
  MoneyInput in;
  in.accelerator = "H100-SXM";
  in.peak_tflops = 989;
  in.accelerators = n;
  in.wall = Band<Seconds>::exactly(hours(wall_h));
  PowerInput power;
  power.accelerator_max = Watts(700);
  power.accelerators = n;
  in.draw = power_draw(power, FigureBook::built_in());
  in.grid = grid_region("us");
  return in;
}

TEST(Prices, SkyPilotCatalogsAreReadAsTheyAre) {
  const auto nebius = offers_for(built_in_offers(), "H100-SXM");
  ASSERT_FALSE(nebius.empty());
  bool seen = false;
  for (const Offer& o : nebius)
    if (o.cloud == "nebius" && o.count == 8 && o.region == "eu-north1") {
      EXPECT_DOUBLE_EQ(*o.on_demand, 2.95);
      EXPECT_DOUBLE_EQ(*o.spot_low, 1.25);
      seen = true;
    }
  EXPECT_TRUE(seen);
  // Columns in another order, a sentinel, a processor row, a blank spot price.
  const auto gcp = read_skypilot("gcp",
                                 "Price,SpotPrice,AcceleratorCount,AcceleratorName,InstanceType,Region\n"
                                 "700.0,700.0,8,H100,a3,us\n2.0,,0,,n2,us\n80,,8,H100,a3,eu\n",
                                 "test");
  ASSERT_EQ(gcp.size(), 1u);
  EXPECT_DOUBLE_EQ(*gcp[0].on_demand, 10);
  EXPECT_FALSE(gcp[0].spot_low);
}

TEST(Prices, NegativeOrMalformedIsRefused) {
  const std::string head = "InstanceType,AcceleratorName,AcceleratorCount,Price,SpotPrice\n";
  EXPECT_THROW(read_skypilot("x", head + "a,H100,8,-5,\n", "t"), Error);
  EXPECT_THROW(read_skypilot("x", head + "a,H100,8,5,-1\n", "t"), Error);
  EXPECT_THROW(read_skypilot("x", head + "a,H100,8,cheap,\n", "t"), Error);
  EXPECT_THROW(read_skypilot("x", "InstanceType,Price\na,5\n", "t"), Error);
}

TEST(Prices, OneAcceleratorManyNames) {
  EXPECT_EQ(canonical_accelerator("H100-SXM5-80GB"), "H100");
  EXPECT_EQ(canonical_accelerator("A100"), "A100-40GB");
  EXPECT_EQ(canonical_accelerator("A100-SXM-80GB"), "A100-80GB");
  EXPECT_EQ(canonical_accelerator("a100-80gb"), "A100-80GB");
  EXPECT_EQ(canonical_accelerator("V100-SXM2-32GB"), "V100-32GB");
  EXPECT_EQ(canonical_accelerator("RTX 4090"), "RTX4090");
  EXPECT_EQ(canonical_accelerator("RTX-4090"), "RTX4090");
  EXPECT_EQ(canonical_accelerator("TPU v5e"), "TPU V5E");
  EXPECT_EQ(canonical_accelerator(""), "");
}

TEST(Money, PublishedCosts) {
  // MPT-7B: about 200,000 $ for 440 A100-40GB over 9.5 days at 2 $; DeepSeek-V3: 2.788 M H800-hours at 2 $
  // = 5.576 M$.
  MoneyInput mpt = h100s(440, 9.5 * 24);
  mpt.accelerator = "A100-40GB";
  mpt.dollars_per_hour = 2;
  FigureBook book = FigureBook::built_in();
  book.set("rent.setup_idle_share", 0);
  EXPECT_NEAR(price_path(PathKind::kOnDemand, mpt, {}, book).total.mid.value() / 200000, 1, 0.01);
  MoneyInput v3 = h100s(2048, 2.788e6 / 2048);
  v3.accelerator = "H800";
  v3.dollars_per_hour = 2;
  EXPECT_NEAR(price_path(PathKind::kOnDemand, v3, {}, book).total.mid.value() / 5.576e6, 1, 1e-3);
}

TEST(Money, LinesAddUpAndTwiceTheTimeCostsTwice) {
  const auto offers = built_in_offers();
  const FigureBook book = FigureBook::built_in();
  for (const PathKind path : kAllPaths) {
    const PathCost once = price_path(path, h100s(8, 500), offers, book),
                   twice = price_path(path, h100s(8, 1000), offers, book);
    ASSERT_TRUE(once.possible) << to_string(path) << once.reason;
    Band<Dollars> sum;
    for (const CostLine& line : once.lines) {
      sum = sum + line.cost;
      EXPECT_FALSE(line.source.empty()) << line.name;
    }
    EXPECT_NEAR(sum.mid.value(), once.total.mid.value(), 1e-6);
    EXPECT_LE(once.total.low.value(), once.total.mid.value()) << to_string(path);
    EXPECT_LE(once.total.mid.value(), once.total.high.value()) << to_string(path);
    const bool reserved = path == PathKind::kReserved1Year || path == PathKind::kReserved3Years;
    EXPECT_NEAR(twice.total.mid / once.total.mid, reserved ? 1 : 2, 1e-9) << to_string(path);
  }
}

TEST(Money, MoreIdleCostsMore) {
  const FigureBook book = FigureBook::built_in();
  MoneyInput in = h100s(64, 500);
  const Dollars busy = price_path(PathKind::kOnPremises, in, {}, book).total.mid;
  in.utilisation = 0.35;
  EXPECT_GT(price_path(PathKind::kOnPremises, in, {}, book).total.mid.value(), 1.5 * busy.value());
  in.utilisation = 0;
  EXPECT_THROW(price_path(PathKind::kOnPremises, in, {}, book), Error);
  in.utilisation = 1;
  in.dollars_per_hour = -1;
  EXPECT_THROW(price_path(PathKind::kOnDemand, in, {}, book), Error);
}

TEST(Money, WhatCannotBePricedSaysWhy) {
  const PathCost none = price_path(PathKind::kSpot, h100s(8, 1), {}, FigureBook::built_in());
  EXPECT_FALSE(none.possible);
  EXPECT_NE(none.reason.find("H100"), std::string::npos);
  EXPECT_FALSE(price_path(PathKind::kEdge, h100s(1024, 1), {}, FigureBook::built_in()).possible);
  EXPECT_THROW(parse_path("on-demnd"), Error);
}

TEST(Money, BreakEvenIsWhereBothCostTheSame) {
  const FigureBook book = FigureBook::built_in();
  MoneyInput in = h100s(1024, 1000);
  const double rent = 2.95;
  const BreakEven even = break_even(PathKind::kOnPremises, rent, in, book);
  ASSERT_GT(even.utilisation, 0);
  ASSERT_LT(even.utilisation, 1);
  in.utilisation = even.utilisation;
  const double owned = price_path(PathKind::kOnPremises, in, {}, book).per_accelerator_hour.mid;
  EXPECT_NEAR(owned, rent, 1e-6);
  // A dearer rent pays off sooner.
  in.utilisation = 0.9;
  EXPECT_LT(break_even(PathKind::kOnPremises, 4, in, book).months,
            break_even(PathKind::kOnPremises, 3, in, book).months);
  EXPECT_TRUE(std::isinf(break_even(PathKind::kOnPremises, 0.01, in, book).months));
}

}  // namespace
}  // namespace stoker::plan
