#include "data/loader/sample_order.h"

#include <gtest/gtest.h>

#include <set>

namespace stoker::data {
namespace {

TEST(SampleOrder, EveryEpochShowsEveryRowOnceAndTheInverseAgrees) {
  for (const uint64_t rows : {1, 2, 7, 64, 100, 101, 997})
    for (const SampleOrder::Near near :
         {SampleOrder::Near{0, 0}, {1, 1}, {1, 3}, {8, 1}, {8, 3}, {10, 4}, {64, 2}, {100, 5}}) {
      const SampleOrder order(5, rows, near);
      for (uint64_t epoch = 0; epoch < 3; ++epoch) {
        std::set<uint64_t> seen;
        for (uint64_t i = 0; i < rows; ++i) {
          const uint64_t row = order.row_of(epoch * rows + i);
          ASSERT_LT(row, rows);
          seen.insert(row);
          ASSERT_EQ(order.sample_of(epoch, row), epoch * rows + i)
              << rows << " rows, runs of " << near.run_rows << " x " << near.runs_together;
        }
        ASSERT_EQ(seen.size(), rows);
      }
    }
}

TEST(SampleOrder, NearOrderTouchesFewRunsAtATime) {
  constexpr uint64_t kRows = 10007, kRun = 100, kTogether = 4;
  const SampleOrder order(9, kRows, {kRun, kTogether});
  for (uint64_t at = 0; at + kRun * kTogether <= kRows; at += 1000) {
    std::set<uint64_t> runs;
    for (uint64_t i = at; i < at + kRun; ++i) runs.insert(order.row_of(i) / kRun);
    EXPECT_LE(runs.size(), 2 * kTogether);  // two groups at most
    EXPECT_GE(runs.size(), kTogether - 1);  // and not row after row of one run
  }
  // Epochs differ.
  int same = 0;
  for (uint64_t i = 0; i < kRows; ++i) same += order.row_of(i) == order.row_of(kRows + i);
  EXPECT_LT(same, 50);
}

// 10 billion rows: nothing is built.
TEST(SampleOrder, TenBillionRows) {
  constexpr uint64_t kRows = 10'000'000'019;
  for (const SampleOrder::Near near : {SampleOrder::Near{0, 0}, {128, 64}}) {
    const SampleOrder order(1, kRows, near);
    for (const uint64_t i : {uint64_t{0}, uint64_t{1}, kRows / 2, kRows - 1, 3 * kRows + 17})
      EXPECT_EQ(order.sample_of(i / kRows, order.row_of(i)), i);
  }
}

}  // namespace
}  // namespace stoker::data
