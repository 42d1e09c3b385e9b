#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace stoker::optim {
namespace {

TEST(Schedule, Shapes) {
  const Schedule cosine{ScheduleKind::kCosine, 1.0, 0.1, 110, 10, 0};
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 1), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 10), 1.0);
  EXPECT_NEAR(learning_rate(cosine, 60), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(cosine, 110), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(cosine, 500), 0.1, 1e-12);
  const Schedule linear{ScheduleKind::kLinear, 1.0, 0.0, 100, 0, 0};
  EXPECT_NEAR(learning_rate(linear, 25), 0.75, 1e-12);
  const Schedule wsd{ScheduleKind::kWsd, 2.0, 0.0, 100, 10, 20};
  EXPECT_DOUBLE_EQ(learning_rate(wsd, 80), 2.0);
  EXPECT_NEAR(learning_rate(wsd, 85), 2 * (1 - std::sqrt(0.25)), 1e-12);
  EXPECT_NEAR(learning_rate(wsd, 100), 0, 1e-12);
  EXPECT_THROW(schedule_from_string("cosin"), Error);
}

struct Matrix {
  std::vector<float> value, grad;
  int64_t rows, columns;
  Matrix(int64_t r, int64_t c, uint64_t stream) : rows(r), columns(c) {
    for (int64_t i = 0; i < r * c; ++i)
      value.push_back(random_normal({1, stream}, static_cast<uint64_t>(i))),
          grad.push_back(random_normal({2, stream}, static_cast<uint64_t>(i)));
  }
  OptimizedParameter parameter(ParameterRole role) {
    return {"w", role, view_of(value.data(), {rows, columns}), view_of(grad.data(), {rows, columns}), {}};
  }
};

// Muon's polynomial maps singular values into about [0.68, 1.13] (Jordan et al. 2024): the update over its scale is nearly orthogonal.
TEST(Muon, UpdateIsNearlyOrthogonal) {
  for (const auto& [r, c] : {std::pair<int64_t, int64_t>{16, 40}, {40, 16}, {24, 24}}) {
    Matrix m(r, c, 3);
    const std::vector<float> before = m.value;
    OptimizerSettings s;
    s.kind = OptimizerKind::kMuon;
    s.weight_decay = 0;
    Optimizer optimizer({m.parameter(ParameterRole::kMatrix)}, s);
    ops::Context context;
    optimizer.update(context, {1.0f, 1, 1.0f});
    const int64_t small = std::min(r, c), large = std::max(r, c);
    double squares = 0;  // sum of squared singular values
    for (size_t i = 0; i < before.size(); ++i)
      squares += std::pow((before[i] - m.value[i]) / (0.2 * std::sqrt(static_cast<double>(large))), 2);
    EXPECT_GT(squares / static_cast<double>(small),
              0.3 * 0.3);  // the smallest singular values of a random matrix start near 0
    EXPECT_LT(squares / static_cast<double>(small), 1.2 * 1.2);
    // and it points down the gradient: <update, grad> is the nuclear norm's share, positive
    double along = 0;
    for (size_t i = 0; i < before.size(); ++i) along += (before[i] - m.value[i]) * m.grad[i];
    EXPECT_GT(along, 0);
  }
}

// Float64 restatement of the update rule over three steps.
TEST(AdamW, MatchesFloat64AndSkipsDecayOfGains) {
  for (const ParameterRole role : {ParameterRole::kMatrix, ParameterRole::kNormGain}) {
    Matrix m(3, 5, 9);
    std::vector<double> w(m.value.begin(), m.value.end()), first(15, 0.0), second(15, 0.0);
    Optimizer optimizer({m.parameter(role)}, {});
    ops::Context context;
    for (int64_t t = 1; t <= 3; ++t) {
      optimizer.update(context, {0.01f, t, 0.5f});
      for (size_t i = 0; i < 15; ++i) {
        const double g = 0.5 * m.grad[i];
        first[i] = 0.9 * first[i] + 0.1 * g, second[i] = 0.95 * second[i] + 0.05 * g * g;
        w[i] *= 1 - 0.01 * (role == ParameterRole::kMatrix ? 0.1 : 0);
        w[i] -= 0.01 * (first[i] / (1 - std::pow(0.9, t))) /
                (std::sqrt(second[i] / (1 - std::pow(0.95, t))) + 1e-8);
      }
    }
    for (size_t i = 0; i < 15; ++i) EXPECT_NEAR(m.value[i], w[i], 1e-5);
  }
}

TEST(Optimizer, NamesItsState) {
  Matrix m(2, 2, 1), gain(1, 2, 2);
  OptimizerSettings s;
  s.kind = OptimizerKind::kMuon;
  OptimizedParameter g = gain.parameter(ParameterRole::kNormGain);
  g.name = "g";
  Optimizer optimizer({m.parameter(ParameterRole::kMatrix), g}, s);
  std::vector<std::string> names;
  for (const NamedTensor& t : optimizer.state()) names.push_back(t.name);
  EXPECT_EQ(names, (std::vector<std::string>{"w.momentum", "g.exp_avg", "g.exp_avg_sq"}));
}

}  // namespace
}  // namespace stoker::optim
