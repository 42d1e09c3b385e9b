#include "plan/failures.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

// The same optimum by brute force: golden-section search on the expected cost per second of work.
double searched_interval(double rate, double checkpoint) {
  const auto cost = [&](double t) { return expected_segment_s(rate, t, checkpoint, 0) / t; };
  const double g = (std::sqrt(5.0) - 1) / 2;
  double a = 1e-6 / rate, b = 10 / rate;
  for (int i = 0; i < 200; ++i) {
    const double x = b - g * (b - a), y = a + g * (b - a);
    (cost(x) < cost(y) ? b : a) = cost(x) < cost(y) ? y : x;
  }
  return (a + b) / 2;
}

TEST(Cadence, ExactFormIsTheMinimumOfDalysExpectation) {
  for (const double mtbf : {600.0, 1e4, 1e6})
    for (const double checkpoint : {0.5, 30.0, 500.0}) {
      const double found = searched_interval(1 / mtbf, checkpoint);
      // A minimum is located to about the square root of the precision of its value.
      EXPECT_NEAR(optimal_cadence(1 / mtbf, checkpoint).exact_s / found, 1, 2e-4)
          << mtbf << " " << checkpoint;
    }
}

TEST(Cadence, FormsAgreeWhereCheckpointsAreCheap) {
  const Cadence c = optimal_cadence(1e-6, 1.0);
  EXPECT_NEAR(c.daly_s / c.exact_s, 1, 1e-5);
  EXPECT_NEAR(c.young_s / c.exact_s, 1, 2e-3);
  EXPECT_EQ(optimal_cadence(0, 5).exact_s, 0);
}

TEST(FailureLogs, RatesReproduceTheLogThatTheyCameFrom) {
  const FailureCatalog catalog = failure_catalog();
  const auto rates = job_rates(catalog, {16384, 8});
  EXPECT_NEAR(total_per_second(rates) * 86400 * 54, 419, 1e-6);  // all of Table 5
  double per_node = 0;
  for (const ClusterRate& c : catalog.clusters)
    if (c.run == "Llama 3 405B") per_node = c.per_node_day;
  EXPECT_NEAR(per_node * 1000, 3.79, 0.005);  // as published
  EXPECT_GE(catalog.clusters.size(), 5u);
  EXPECT_GT(catalog.log_factor_sigma, 0.2);
}

TEST(FailureLogs, SpreadCoversTheOtherClusters) {
  const FailureCatalog catalog = failure_catalog();
  for (const ClusterRate& c : catalog.clusters) {
    const double z =
        (std::log(c.per_node_day / 3.79e-3) - catalog.log_factor_mean) / catalog.log_factor_sigma;
    EXPECT_LT(std::abs(z), 2) << c.run;
  }
}

TEST(FailureLogs, BadTablesAreRefused) {
  EXPECT_THROW(read_failure_catalog("x", "run,count\na,1\n"), Error);
  const std::string head = "run,accelerators,accelerators_per_node,days,component,count,source\n";
  EXPECT_THROW(read_failure_catalog("x", head + "a,8,8,-1,host,3,s\n"), Error);
  EXPECT_THROW(read_failure_catalog("x", head + "a,8,8,1,total,3,s\n"), Error);
  EXPECT_NO_THROW(read_failure_catalog("x", head + "a,8,8,1,host,3,s\n"));
}

GoodputInput input_at(int64_t accelerators, double days) {
  GoodputInput in;
  in.work_s = days * 86400;
  in.scale = {accelerators, 8};
  in.rates = job_rates(failure_catalog(), in.scale);
  return in;
}

TEST(Goodput, SimulationMeetsDalysExpectation) {
  GoodputInput in = input_at(16384, 10);
  in.recovery.replace_s = 0;  // so that every outage lasts the same, as in the formula
  in.interval_s = 3600;
  in.trials = 4000;
  const GoodputResult r = simulate_goodput(in);
  const double segments = in.work_s / in.interval_s;
  const double expected =
      segments * expected_segment_s(total_per_second(in.rates), in.interval_s, in.recovery.checkpoint_s,
                                    mean_outage_s(in.recovery, in.rates)) -
      in.recovery.checkpoint_s;  // the last one is not written
  // The spread of a sum of independent segments; 5 standard errors of the mean over the trials.
  const double spread = (r.wall_p90_s - r.wall_p50_s) / 1.2816;
  EXPECT_NEAR(r.wall_mean_s, expected, 5 * spread / std::sqrt(4000.0));
  EXPECT_NEAR(r.wall_mean_s, in.work_s + r.checkpoint_s + r.lost_work_s + r.outage_s + r.degraded_s,
              1e-6 * r.wall_mean_s);
}

TEST(Goodput, OptimalIntervalBeatsOthers) {
  GoodputInput in = input_at(16384, 20);
  in.trials = 1000;
  const GoodputResult best = simulate_goodput(in);
  for (const double factor : {0.2, 4.0}) {
    GoodputInput other = in;
    other.interval_s = best.interval_s * factor;
    EXPECT_LT(best.wall_mean_s, simulate_goodput(other).wall_mean_s) << factor;
  }
}

TEST(Goodput, MoreAcceleratorsFailMoreAndBetterRecoveryLosesLess) {
  double last = 1.1;
  for (const int64_t n : {8, 256, 2048, 16384, 131072}) {
    GoodputInput in = input_at(n, 20);
    in.trials = 300;
    in.log_factor_mean = 0.3;
    in.log_factor_sigma = 0.5;
    const double goodput = simulate_goodput(in).mean_goodput;
    EXPECT_LT(goodput, last) << n;
    last = goodput;
  }
  double by_mode[3];
  const RecoveryMode modes[] = {RecoveryMode::kStorage, RecoveryMode::kHotSpare, RecoveryMode::kElastic};
  for (int i = 0; i < 3; ++i) {
    GoodputInput in = input_at(16384, 20);
    in.trials = 300;
    in.recovery.mode = modes[i];
    by_mode[i] = simulate_goodput(in).mean_goodput;
  }
  EXPECT_LT(by_mode[0], by_mode[1]);
  EXPECT_LT(by_mode[1], by_mode[2]);
}

TEST(Goodput, NothingFailsNothingIsLost) {
  GoodputInput in;
  in.work_s = 1000;
  in.trials = 10;
  const GoodputResult r = simulate_goodput(in);
  EXPECT_DOUBLE_EQ(r.wall_p99_s, 1000);
  EXPECT_DOUBLE_EQ(r.mean_goodput, 1);
}

TEST(Goodput, SameSeedSameAnswerOtherSeedOther) {
  GoodputInput in = input_at(1024, 30);
  in.trials = 200;
  const double first = simulate_goodput(in).wall_mean_s;
  EXPECT_EQ(first, simulate_goodput(in).wall_mean_s);
  in.seed = 2;
  EXPECT_NE(first, simulate_goodput(in).wall_mean_s);
}

TEST(Goodput, ARunThatNeverEndsSaysSo) {
  GoodputInput in = input_at(10'000'000, 1);
  in.trials = 1;
  in.recovery.replace_s = 36000;
  EXPECT_THROW(simulate_goodput(in), Error);
  in.recovery.detect_s = -1;
  EXPECT_THROW(simulate_goodput(in), Error);
}

TEST(Csv, QuotesOrderAndMistakes) {
  const CsvTable t("t.csv",
                   "\xEF\xBB\xBF"
                   "b,a\r\n1,\"x, \"\"y\"\"\n z\"\r\n\n2\n");
  ASSERT_EQ(t.rows(), 2u);
  EXPECT_EQ(t.text(0, "a"), "x, \"y\"\n z");
  EXPECT_EQ(t.number(1, "b"), 2);
  EXPECT_EQ(t.text(1, "a"), "");
  EXPECT_EQ(t.where(1), "t.csv line 5");
  EXPECT_THROW(t.number(0, "a"), Error);
  EXPECT_THROW(t.require_column("c"), Error);
  EXPECT_THROW(CsvTable("t", "a\n\"open\n"), Error);
  EXPECT_THROW(CsvTable("t", "a\n1,2\n"), Error);
  EXPECT_THROW(CsvTable("t", ""), Error);
  EXPECT_THROW(CsvTable("t", "a\nnan\n").number(0, "a"), Error);
}

}  // namespace
}  // namespace stoker::plan
