#include "plan/published_failures.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "plan/failures.h"

namespace stoker::plan {
namespace {

TEST(PublishedFailures, EveryRowIsPredictedOrSaysWhyNot) {
  const CsvTable table("failures.csv",
                       "cluster_or_run,scale,window,category,cause,count,metric,value,unit\n"
                       "Llama 3 405B,\"16,384 H100\",54 days,summary,,,unexpected interruptions,419,count\n"
                       "Llama 3 405B,\"16,384 H100\",54 days,summary,,,MTBF of job,3.09,h\n"
                       "Crusoe customer,\"1,600 H200\",4 months,summary,,,failures,205,count (approx.)\n"
                       "Lab,24k A100 GPUs,11 months,summary,,,\"MTTF 16,384-GPU job\",1.8,h\n"
                       "MegaScale,\">10,000 GPUs\",several weeks,summary,,,effective training time,>90,%\n"
                       "Lab,\"16 H100\",9 days,GPU,Faulty GPU,148,,,\n"
                       "Lab,,,summary,,,MTTF,3,h\n"
                       "Lab,8 H100,1 week,summary,,,link flaps,60,per day\n");
  const std::vector<FailureCheck> c = check_failures(table);
  ASSERT_EQ(c.size(), 8u);
  EXPECT_TRUE(c[0].own_log);
  EXPECT_NEAR(c[0].predicted.mid, 419, 1e-6);  // the log that the rates come from
  EXPECT_NEAR(c[1].predicted.mid, 3.09, 0.01);
  // a cluster is predicted without its own log: the others' mean differs from what it saw
  EXPECT_FALSE(c[2].own_log);
  EXPECT_NE(c[2].predicted.mid, 205);
  EXPECT_LT(c[2].predicted.low, c[2].predicted.mid);
  // the metric's own number of accelerators goes before the cluster's
  const double mid = c[3].predicted.mid,
               per_day = total_per_second(job_rates(failure_catalog(), {16384, 8})) * 86400;
  EXPECT_NEAR(mid, 24 / per_day / std::exp(failure_catalog().log_factor_mean), 1e-9);
  EXPECT_TRUE(c[4].at_least);
  EXPECT_GT(c[4].predicted.mid, 50);
  EXPECT_LE(c[4].predicted.high, 100);
  for (size_t i = 5; i < 8; ++i) EXPECT_FALSE(c[i].reason.empty()) << i;
  EXPECT_THROW(check_failures(CsvTable("x", "cluster_or_run\nLab\n")), Error);
}

}  // namespace
}  // namespace stoker::plan
