#include "plan/published_ops.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/collectives.h"
#include "plan/efficiency.h"
#include "plan/matrix_product.h"

namespace stoker::plan {
namespace {

TEST(MatrixProduct, IsNeverFasterForMoreWorkNorSlowerOnBetterHardware) {
  const ProductRates rates{.arithmetic = 8e14, .memory = 3e12, .kernel = 5e-6, .tile = 96};
  double before = 0;
  for (double m = 1; m < 1e6; m *= 1.5) {
    const double t = product_seconds(m, 4096, 4096, rates);
    EXPECT_GT(t, before) << m;
    EXPECT_GE(t, 2 * m * 4096 * 4096 / rates.arithmetic) << m;  // never beyond the arithmetic's rate
    EXPECT_GE(t, 2 * 4096 * (2 * m + 4096) / rates.memory) << m;
    before = t;
  }
  ProductRates better = rates;
  better.memory *= 2;
  EXPECT_LT(product_seconds(16, 4096, 4096, better), product_seconds(16, 4096, 4096, rates));
}

TEST(PublishedOps, ProductsOfTheModelItselfAreFoundAgain) {
  const Efficiency e = fitted_efficiency().resolve("H100", "", "");
  const ProductRates truth{
      .arithmetic = 7e14,
      .memory = e[Term::kMemory] * find_accelerator("h100").spec.memory_bandwidth.value(),
      .kernel = e[Term::kKernel],
      .tile = e[Term::kTile]};
  std::string csv = "system,dtype,m,n,k,TFLOPs\n";
  for (double n : {1024.0, 4096.0, 16384.0, 65536.0})
    csv += fmt::format("Lab H100 node,bf16,{0},{0},{0},{1:.10g}\n", n,
                       2 * n * n * n / product_seconds(n, n, n, truth) / 1e12);
  csv += "Abacus,bf16,8,8,8,1\n";
  const std::vector<OpCheck> checks = check_products(CsvTable("gemm.csv", csv));
  ASSERT_EQ(checks.size(), 5u);
  // the largest's kernel time is taken for arithmetic: 1 part in 10,000
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(checks[i].error, 0, 5e-4) << checks[i].what;
  EXPECT_TRUE(checks[3].sets_a_rate);
  EXPECT_NE(checks[4].reason.find("no accelerator"), std::string::npos);
  EXPECT_EQ(summarise(checks).predicted, 3u);
  EXPECT_THROW(check_products(CsvTable("x", "system,dtype,m,n,k,TFLOPs\nH100,bf16,0,1,1,5\n")), Error);
}

TEST(PublishedOps, CollectivesOfTheModelItselfAreFoundAgain) {
  const Fabric truth{.inside = 4e11, .between = 1, .domain = 0, .start = 4e-6, .hop = 0};
  std::string csv = "system,n_gpus,collective,algorithm,payload_bytes,busbw_GBps\n";
  for (double bytes : {1024.0, 1e6, 1e8, 1e10})
    csv += fmt::format("Lab H100 node,8,all_reduce,ring,{},{:.10g}\n", bytes,
                       1.75 * bytes / all_reduce_seconds(truth, {8, 1}, bytes) / 1e9);
  csv += "Lab H100 node,8,broadcast,ring,1000,1\n";
  const std::vector<OpCheck> checks = check_collectives(CsvTable("comm.csv", csv));
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(checks[i].error, 0, 2e-3) << checks[i].what;
  EXPECT_FALSE(checks[4].reason.empty());
  EXPECT_EQ(summarise(checks).predicted, 2u);
  EXPECT_THROW(check_collectives(CsvTable("x", "system,n_gpus\nH100,8\n")), Error);
}

}  // namespace
}  // namespace stoker::plan
