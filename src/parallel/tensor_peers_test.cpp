// Sums and gathers of more rows than go in one piece, against the same made in one place.
#include "parallel/tensor_peers.h"

#include <gtest/gtest.h>

#include <thread>

#include "comm/ring_transport.h"

namespace stoker::parallel {
namespace {

constexpr int64_t kWidth = 5;

float part(int worker, int64_t i) { return 1.0f / static_cast<float>(1 + (i * 31 + worker * 17) % 1009); }

void together(int workers, const std::function<void(comm::Communicator&)>& body) {
  comm::LocalGroup group(workers);
  std::vector<std::thread> threads;
  for (int r = 0; r < workers; ++r)
    threads.emplace_back([&, r] { body(*comm::make_communicator(group.transport(r), 1, 60)); });
  for (std::thread& t : threads) t.join();
}

class TensorPieces : public testing::TestWithParam<std::tuple<int, bool, int64_t>> {};

TEST_P(TensorPieces, SumsAreTheTreesAndEveryRowIsMadeOnce) {
  const auto& [workers, split_rows, rows] = GetParam();
  std::vector<float> expected(static_cast<size_t>(rows * kWidth));
  const auto folds = comm::fold_plan(comm::even_spans(workers, workers), workers);
  for (int64_t i = 0; i < rows * kWidth; ++i) {
    std::vector<float> slots;
    for (int w = 0; w < workers; ++w) slots.push_back(part(w, i));
    for (const comm::Fold& f : folds)
      slots[static_cast<size_t>(f.into)] += slots[static_cast<size_t>(f.from)];
    expected[static_cast<size_t>(i)] = slots[0];
  }
  together(workers, [&, split = split_rows, n = rows](comm::Communicator& c) {
    CommTensorPeers peers(c, split);
    const int me = c.rank();
    const int64_t first = me * n / c.size(), last = (me + 1) * n / c.size();
    std::vector<float> partial(static_cast<size_t>(n * kWidth)), out(partial.size(), -1);
    std::vector<int> made(static_cast<size_t>(n), 0);
    const auto make = [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) ++made[static_cast<size_t>(r)];
      for (int64_t i = begin * kWidth; i < end * kWidth; ++i) partial[static_cast<size_t>(i)] = part(me, i);
    };
    const int64_t begin = split ? first : 0, end = split ? last : n;
    bool beside = false;
    peers.sum(
        view_of(partial.data(), {n, kWidth}), make, [&] { beside = true; }, {},
        view_of(out.data(), {end - begin, kWidth}));
    EXPECT_TRUE(beside);
    EXPECT_EQ(made, std::vector<int>(static_cast<size_t>(n), 1));
    for (int64_t i = begin * kWidth; i < end * kWidth; ++i)
      ASSERT_EQ(out[static_cast<size_t>(i - begin * kWidth)], expected[static_cast<size_t>(i)]) << i;
  });
}

TEST_P(TensorPieces, GatheredRowsAreUsedOnceAndWhenTheyAreThere) {
  const auto& [workers, split_rows, asked] = GetParam();
  const int64_t rows = asked / workers * workers;  // shares are alike
  together(workers, [&, n = rows](comm::Communicator& c) {
    CommTensorPeers peers(c, true);
    const int64_t each = n / c.size();
    std::vector<float> mine(static_cast<size_t>(each * kWidth)), all(static_cast<size_t>(n * kWidth), -1);
    for (size_t i = 0; i < mine.size(); ++i)
      mine[i] = part(0, c.rank() * each * kWidth + static_cast<int64_t>(i));
    std::vector<int> used(static_cast<size_t>(n), 0);
    peers.gather_rows(view_of(mine.data(), {each, kWidth}), view_of(all.data(), {n, kWidth}),
                      [&](int64_t begin, int64_t end) {
                        for (int64_t r = begin; r < end; ++r) ++used[static_cast<size_t>(r)];
                        for (int64_t i = begin * kWidth; i < end * kWidth; ++i)
                          ASSERT_EQ(all[static_cast<size_t>(i)], part(0, i)) << i;
                      });
    EXPECT_EQ(used, std::vector<int>(static_cast<size_t>(n), 1));
  });
}

INSTANTIATE_TEST_SUITE_P(All, TensorPieces,
                         testing::Combine(testing::Values(2, 3, 4), testing::Bool(),
                                          testing::Values(7, 256, 1001)));

}  // namespace
}  // namespace stoker::parallel
