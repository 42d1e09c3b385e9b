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

std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, int64_t m, int64_t k,
                            int64_t n) {
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t l = 0; l < k; ++l)
      for (int64_t j = 0; j < n; ++j) c[i * n + j] += a[i * k + l] * b[l * n + j];
  return c;
}

// The first update's direction in float64: with momentum from zero it is that of the gradient.
std::vector<double> orthogonalised(const Matrix& matrix) {
  const int64_t m = matrix.rows, n = matrix.columns;
  std::vector<double> x(matrix.grad.begin(), matrix.grad.end());
  double squares = 0;
  for (const double v : x) squares += v * v;
  for (double& v : x) v /= std::sqrt(squares);
  for (int iteration = 0; iteration < 5; ++iteration) {
    std::vector<double> t(x.size());
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) t[j * m + i] = x[i * n + j];
    std::vector<double> gram = product(x, t, m, n, m), poly = product(gram, gram, m, m, m);
    for (int64_t i = 0; i < m * m; ++i)
      poly[i] = -4.7750 * gram[i] + 2.0315 * poly[i] + (i / m == i % m ? 3.4445 : 0);
    x = product(poly, x, m, m, n);
  }
  return x;
}

// Against float64. One iteration maps a singular value s to s (a + b s^2 + c s^4); for s <= 1.2 the magnitudes of the three terms
// sum to at most 14.5, and each of the three rounded operands (X, Gram, polynomial) is off by at most half a unit, u = 2^-9 in
// bf16 and 2^-24 in f32. The map's slope is at most a = 3.4445 only near s = 0, where the terms shrink with s; near 1 it is
// below 1.4, so five iterations err by less than 5 * 14.5 u in each direction (f32: times sqrt(n) for unordered sums).
TEST(Muon, MatchesFloat64InBothPrecisions) {
  for (const auto& [r, c] : {std::pair<int64_t, int64_t>{16, 40}, {40, 16}, {32, 32}, {96, 64}}) {
    for (const bool bf16 : {false, true}) {
      Matrix m(r, c, 5);
      const std::vector<float> before = m.value;
      const std::vector<double> want = orthogonalised(m);
      OptimizerSettings s;
      s.kind = OptimizerKind::kMuon;
      s.weight_decay = 0;
      std::vector<Bf16> copy(before.size());
      OptimizedParameter p = m.parameter(ParameterRole::kMatrix);
      if (bf16) p.copy = TensorView{copy.data(), {r, c}, Dtype::kBf16, {}};
      Optimizer optimizer({p}, s);
      ops::Context context;
      optimizer.update(context, {1.0f, 1, 1.0f});
      double error = 0, size = 0;
      for (size_t i = 0; i < before.size(); ++i) {
        const double got =
            (double{before[i]} - m.value[i]) / (0.2 * std::sqrt(static_cast<double>(std::max(r, c))));
        error += (got - want[i]) * (got - want[i]);
        size += want[i] * want[i];
        if (bf16) {
          EXPECT_EQ(copy[i].bits, to_bf16(m.value[i]).bits);
        }
      }
      const double u =
          bf16 ? std::pow(2, -9) : std::pow(2, -24) * std::sqrt(static_cast<double>(std::max(r, c)));
      EXPECT_LT(std::sqrt(error / size), 5 * 14.5 * u) << r << "x" << c << (bf16 ? " bf16" : " f32");
    }
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
