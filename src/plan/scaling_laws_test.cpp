#include "plan/scaling_laws.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace stoker::plan {
namespace {

TEST(ScalingLaws, ClosedFormIsTheMinimumAlongAnIsoFlopCurve) {
  for (const Fit which : all_fits())
    for (const double flops : {1e19, 5.76e23, 4e25}) {
      const LossFit& fit = loss_fit(which);
      const ComputeOptimal best = compute_optimal(fit, flops);
      double searched = 1e9;
      for (double x = -2; x <= 2; x += 0.001) {
        const double n = best.parameters * std::pow(10, x);
        searched = std::min(searched, loss(fit, n, flops / 6 / n));
      }
      EXPECT_LE(best.loss, searched + 1e-12);
      EXPECT_NEAR(best.loss, searched, 1e-6);
    }
}

// What the papers say of their own fits.
TEST(ScalingLaws, PublishedStatements) {
  // Besiroglu et al.: about 20 tokens per parameter at Chinchilla's compute, as Hoffmann's other approaches
  // found.
  const ComputeOptimal epoch = compute_optimal(loss_fit(Fit::kEpoch), 5.76e23);
  EXPECT_NEAR(epoch.tokens / epoch.parameters, 20, 8);
  // Hoffmann's approach 3 says 40 billion parameters there.
  EXPECT_NEAR(compute_optimal(loss_fit(Fit::kHoffmann), 5.76e23).parameters / 40e9, 1, 0.2);
  // Muennighoff et al.: up to 4 epochs repeated tokens are nearly as good as new; at 40 epochs hardly worth
  // anything.
  EXPECT_GT(effective_tokens(4, 1) / 4, 0.9);
  EXPECT_LT(effective_tokens(41, 1) - effective_tokens(40, 1), 0.1);
}

TEST(ScalingLaws, Laws) {
  const LossFit& fit = loss_fit(Fit::kEpoch);
  EXPECT_LT(loss(fit, 2e9, 1e11), loss(fit, 1e9, 1e11));
  EXPECT_LT(loss(fit, 1e9, 2e11), loss(fit, 1e9, 1e11));
  EXPECT_EQ(data_limited_loss(fit, 1e9, 1e11, 1e11), loss(fit, 1e9, 1e11));
  EXPECT_GT(data_limited_loss(fit, 1e9, 1e11, 1e10), loss(fit, 1e9, 1e11));
  double last = 10;
  for (double t = 1e10; t < 1e13; t *= 2) {
    const double now = data_limited_loss(fit, 1e9, t, 1e11);
    EXPECT_LE(now, last);
    last = now;
  }
}

TEST(ScalingLaws, ReturnsFlagWhatDoesNotExist) {
  const Returns fine = returns(8e9, 15e12, 0, 1e7, 3e14);
  EXPECT_FALSE(fine.more_than_exists);
  EXPECT_EQ(fine.epochs, 1);
  EXPECT_LE(fine.loss.low, fine.loss.mid);
  EXPECT_LE(fine.compute_optimal_loss.mid, fine.loss.mid);
  EXPECT_GT(fine.dollars_per_millinat.mid, 0);
  // Twice the price, twice the marginal price.
  EXPECT_NEAR(returns(8e9, 15e12, 0, 2e7, 3e14).dollars_per_millinat.mid / fine.dollars_per_millinat.mid, 2,
              1e-9);
  EXPECT_TRUE(returns(1e12, 4e14, 0, 0, 3e14).more_than_exists);
  EXPECT_FALSE(returns(1e12, 4e14, 1e13, 0, 3e14).more_than_exists);
  EXPECT_EQ(returns(1e12, 4e14, 1e13, 0, 3e14).epochs, 40);
  EXPECT_THROW(returns(0, 1, 1, 0, 1), Error);
  EXPECT_THROW(returns(1, 1, 1, -1, 1), Error);
}

}  // namespace
}  // namespace stoker::plan
