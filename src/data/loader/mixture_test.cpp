#include "data/loader/mixture.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace stoker::data {
namespace {

MixtureSource source(std::string name, uint64_t samples, uint64_t limit = UINT64_MAX, bool drop = false) {
  return {std::move(name), samples, limit, drop};
}

// Every pick, one after another: each source's numbers are 0, 1, 2 ..., and count() and sample_of() agree with them.
void check_all(const MixtureSchedule& m, uint64_t samples) {
  std::vector<uint64_t> next(m.sources().size(), 0);
  for (uint64_t n = 0; n < samples; ++n) {
    const auto pick = m.pick(n);
    ASSERT_EQ(pick.number, next[pick.source]) << "sample " << n;
    ASSERT_EQ(m.count(pick.source, n), next[pick.source]);
    ASSERT_EQ(m.sample_of(pick.source, pick.number), n);
    ++next[pick.source];
    ASSERT_EQ(m.count(pick.source, n + 1), next[pick.source]);
  }
}

TEST(Mixture, EachSourceIsNumberedWithoutAGapAndKeepsItsShare) {
  for (const std::vector<uint64_t>& weights : {std::vector<uint64_t>{1},
                                               {1, 1},
                                               {7, 3},
                                               {1, 0, 999},
                                               {5, 4, 3, 2, 1},
                                               {333'333, 333'333, 333'334},
                                               {1ull << 40, 1, 1ull << 39}}) {
    std::vector<MixtureSource> sources;
    double total = 0;
    for (size_t s = 0; s < weights.size(); ++s) {
      sources.push_back(source(std::string(1, static_cast<char>('a' + s)), 100));
      total += static_cast<double>(weights[s]);
    }
    const MixtureSchedule m(sources, {{0, weights}});
    check_all(m, 3000);
    for (uint64_t n = 0; n < 3000; n += 7)
      for (size_t s = 0; s < weights.size(); ++s) {
        const double ideal = static_cast<double>(n) * static_cast<double>(weights[s]) / total;
        EXPECT_LE(std::abs(static_cast<double>(m.count(s, n)) - ideal),
                  std::ceil(std::log2(static_cast<double>(weights.size()))) / 2 + 1e-9)
            << "source " << s << " of " << weights.size() << " after " << n;
      }
  }
}

TEST(Mixture, RandomSchedulesAreExact) {
  for (uint64_t trial = 0; trial < 60; ++trial) {
    const auto draw = [&](uint64_t i, uint64_t bound) { return random_u64({trial, 8}, i) % bound; };
    const size_t k = 1 + draw(0, 9);
    std::vector<MixtureSource> sources;
    for (size_t s = 0; s < k; ++s)
      sources.push_back(source(std::string(1, static_cast<char>('a' + s)), 1 + draw(10 + s, 50),
                               draw(30 + s, 3) ? UINT64_MAX : 1 + draw(50 + s, 300), draw(70 + s, 2) == 1));
    std::vector<MixturePhase> phases;
    for (uint64_t p = 0, at = 0; p < 1 + draw(1, 5); ++p, at += 1 + draw(90 + p, 200)) {
      MixturePhase phase{at, {}};
      for (size_t s = 0; s < k; ++s) phase.weights.push_back(draw(100 + 20 * p + s, 4) * draw(200 + s, 1000));
      phase.weights[draw(95 + p, k)] = 17;
      phases.push_back(phase);
    }
    const MixtureSchedule m(sources, phases);
    const uint64_t upto = std::min<uint64_t>(m.end(), 1500);
    check_all(m, upto);
    for (size_t s = 0; s < k; ++s) EXPECT_LE(m.count(s, upto), sources[s].limit);
  }
}

TEST(Mixture, WhatHappensWhenASourceRunsOut) {
  // b may be shown 30 times; then a and c share by their weights.
  const MixtureSchedule drop({source("a", 1000), source("b", 10, 30, true), source("c", 1000)},
                             {{0, {1, 2, 1}}});
  EXPECT_EQ(drop.end(), MixtureSchedule::kForever);
  ASSERT_EQ(drop.phases().size(), 2u);
  EXPECT_NEAR(static_cast<double>(drop.phases()[1].first_sample), 60, 2);
  EXPECT_EQ(drop.count(1, 1'000'000), 30u);
  EXPECT_EQ(drop.sample_of(1, 30), MixtureSchedule::kForever);
  EXPECT_DOUBLE_EQ(drop.share(1, 0), 0.5);
  check_all(drop, 500);
  // The same, but the mixture ends there, and says by whom.
  const MixtureSchedule stop({source("a", 1000), source("b", 10, 30), source("c", 1000)}, {{0, {1, 2, 1}}});
  EXPECT_EQ(stop.end(), drop.phases()[1].first_sample);
  EXPECT_EQ(stop.ended_by(), 1u);
  check_all(stop, stop.end());
  // Everybody has left.
  const MixtureSchedule none({source("a", 10, 20, true), source("b", 10, 30, true)}, {{0, {1, 1}}});
  EXPECT_EQ(none.end(), 50u);
  EXPECT_EQ(none.ended_by(), 2u);
  check_all(none, 50);
}

TEST(Mixture, ALaterPhaseDoesNotTouchTheSamplesBeforeIt) {
  const std::vector<MixtureSource> sources{source("a", 100), source("b", 100), source("c", 100)};
  const MixtureSchedule one(sources, {{0, {1, 2, 0}}, {500, {1, 1, 1}}});
  const MixtureSchedule two(sources, {{0, {2, 4, 0}}, {500, {0, 0, 1}}, {501, {1, 9, 1}}});
  for (uint64_t n = 0; n < 500; ++n) EXPECT_EQ(one.pick(n), two.pick(n));
  // A phase that changes nothing changes nothing.
  const MixtureSchedule same(sources, {{0, {1, 2, 0}}, {123, {10, 20, 0}}});
  EXPECT_EQ(same.phases().size(), 1u);
  for (uint64_t n = 0; n < 500; ++n) EXPECT_EQ(one.pick(n), same.pick(n));
}

TEST(Mixture, FarAwaySamplesNeedNoWalk) {
  const MixtureSchedule m({source("a", 10'000'000'000), source("b", 3)},
                          {{0, {999'999, 1}}, {1'000'000'007, {3, 1}}});
  for (const uint64_t n : {uint64_t{0}, uint64_t{1} << 40, uint64_t{1} << 61}) {
    const auto pick = m.pick(n);
    EXPECT_EQ(m.sample_of(pick.source, pick.number), n);
    EXPECT_EQ(m.count(0, n) + m.count(1, n), n);
  }
}

TEST(Mixture, NonsenseIsRefused) {
  const auto bad = [](std::vector<MixtureSource> s, const std::vector<MixturePhase>& p) {
    try {
      MixtureSchedule(std::move(s), p);
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    }
  };
  bad({}, {{0, {}}});
  bad({source("a", 0)}, {{0, {1}}});
  bad({source("a", 1)}, {});
  bad({source("a", 1)}, {{1, {1}}});
  bad({source("a", 1)}, {{0, {0}}});
  bad({source("a", 1)}, {{0, {1, 2}}});
  bad({source("a", 1)}, {{0, {1}}, {0, {1}}});
  bad({source("a", 1)}, {{0, {(uint64_t{1} << 40) + 1}}});
}

}  // namespace
}  // namespace stoker::data
