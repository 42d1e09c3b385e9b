#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>

#include "base/checked.h"
#include "base/edit_distance.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/median.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/threads.h"

namespace stoker {
namespace {

TEST(Error, ExitCodesAreTheContract) {
  EXPECT_EQ(exit_code(ErrorKind::kUsage), 64);
  EXPECT_EQ(exit_code(ErrorKind::kData), 65);
  EXPECT_EQ(exit_code(ErrorKind::kPeer), 69);
  EXPECT_EQ(exit_code(ErrorKind::kInternal), 70);
  EXPECT_EQ(exit_code(ErrorKind::kDevice), 71);
  EXPECT_EQ(exit_code(ErrorKind::kStorage), 74);
  EXPECT_EQ(exit_code(ErrorKind::kCancelled), 75);
  EXPECT_EQ(exit_code(ErrorKind::kNumeric), 76);
}

TEST(Checked, OverflowIsADataError) {
  EXPECT_EQ(checked_mul<uint64_t>(1u << 31, 2, "x"), uint64_t{1} << 32);
  EXPECT_THROW(checked_mul<int32_t>(1 << 30, 4, "tensor size"), Error);
  EXPECT_THROW(checked_add<uint64_t>(~uint64_t{0}, 1, "offset"), Error);
  EXPECT_THROW(checked_cast<int32_t>(int64_t{1} << 40, "length"), Error);
}

// Known-answer vectors of Random123's kat_vectors file for philox4x32-10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0}, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~uint64_t{0}, ~uint64_t{0}}, ~uint64_t{0}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Philox, NormalHasUnitMoments) {
  double sum = 0, squares = 0;
  constexpr int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double x = random_normal({7, 1}, static_cast<uint64_t>(i));
    sum += x, squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));  // five standard errors
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
}

TEST(KeyedPermutation, IsABijectionWithAnInverse) {
  for (uint64_t size : {1, 2, 3, 7, 64, 1000, 4097}) {
    const KeyedPermutation p(42, size);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t image = p.permute(i);
      ASSERT_LT(image, size);
      ASSERT_EQ(p.unpermute(image), i);
      seen.insert(image);
    }
    EXPECT_EQ(seen.size(), size);
  }
  const KeyedPermutation huge(1, uint64_t{10'000'000'000});
  EXPECT_EQ(huge.unpermute(huge.permute(9'999'999'999)), 9'999'999'999u);
}

TEST(Hash, StreamingEqualsOneShot) {
  const std::string text(100000, 'x');
  Hasher h;
  h.update(text.data(), 1);
  h.update(text.data() + 1, text.size() - 1);
  EXPECT_EQ(h.digest(), hash128(text));
  EXPECT_EQ(hash128("").hex(), "99aa06d3014798d86001c324468d497f");  // XXH3's published value for no input
}

TEST(Threads, EveryIndexOnceAndExceptionsArrive) {
  std::vector<std::atomic<int>> hits(1000);
  parallel_for(1000, [&](int64_t i) { hits[static_cast<size_t>(i)]++; });
  parallel_ranges(1000, [&](int64_t b, int64_t e, int) {
    for (; b < e; ++b) hits[static_cast<size_t>(b)]++;
  });
  for (auto& h : hits) EXPECT_EQ(h, 2);
  EXPECT_THROW(parallel_for(8,
                            [](int64_t i) {
                              if (i == 5) fail(ErrorKind::kData, "five");
                            }),
               Error);
}

TEST(Threads, NestedTeamsDropNoWork) {
  const int before = compute_threads();
  set_compute_threads(3);
  std::atomic<int64_t> sum{0};
  parallel_for(4, [&](int64_t) {
    parallel_ranges(100, [&](int64_t b, int64_t e, int) {
      for (; b < e; ++b) sum += b;
    });
  });
  set_compute_threads(before);
  EXPECT_EQ(sum, 4 * 4950);
}

TEST(EditDistance, CountsInsertionsDeletionsAndSubstitutions) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("same", "same"), 0u);
}

TEST(Human, Units) {
  EXPECT_EQ(human_bytes(1.5e9), "1.50 GB");
  EXPECT_EQ(human_count(124.4e6), "124.40 M");
  EXPECT_EQ(human_duration(200), "3 m 20 s");
}

TEST(Median, IsAValueThatOccurred) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 3, 2}), 3) << "the upper of the two in the middle";
  EXPECT_EQ(median({nan, 7, inf, -inf}), 7);
  EXPECT_TRUE(std::isnan(median({})));
  EXPECT_TRUE(std::isnan(median({nan, inf})));
}

}  // namespace
}  // namespace stoker
