#include "comm/tree.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "base/error.h"

namespace stoker::comm {
namespace {

// The definition, written the plain way: what every other path must reproduce to the bit.
float tree_value(const std::vector<float>& leaves, int lo, int hi) {
  if (hi - lo == 1) return leaves[static_cast<size_t>(lo)];
  int left = 1;
  while (left * 2 < hi - lo) left *= 2;
  return tree_value(leaves, lo, lo + left) + tree_value(leaves, lo + left, hi);
}

TEST(Tree, SpansAreContiguousAndEven) {
  for (int v = 1; v <= 17; ++v)
    for (int n = 1; n <= 9; ++n) {
      int next = 0;
      for (int w = 0; w < n; ++w) {
        const LeafSpan s = leaves_of(w, n, v);
        EXPECT_EQ(s.begin, next);
        EXPECT_TRUE(s.size() == v / n || s.size() == v / n + 1);
        next = s.end;
      }
      EXPECT_EQ(next, v);
    }
  EXPECT_THROW(leaves_of(3, 3, 8), Error);
  EXPECT_THROW(leaves_of(0, 1, 0), Error);
}

TEST(Tree, AnyCutFoldsToTheSameBits) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1e3f, 1e3f);
  for (int v = 1; v <= 33; ++v) {
    std::vector<float> leaves(static_cast<size_t>(v));
    for (float& x : leaves) x = uniform(random);
    const float truth = tree_value(leaves, 0, v);
    for (int cut = 0; cut < 20; ++cut) {
      std::vector<LeafSpan> parts;
      for (int begin = 0; begin < v;) {
        const int end = cut == 0 ? v : std::min<int>(v, begin + 1 + static_cast<int>(random() % 5));
        const auto own = complete_subtrees({begin, end}, v);
        parts.insert(parts.end(), own.begin(), own.end());
        begin = end;
      }
      std::vector<float> slots;
      for (const LeafSpan& p : parts) slots.push_back(tree_value(leaves, p.begin, p.end));
      for (const Fold& f : fold_plan(parts, v))
        slots[static_cast<size_t>(f.into)] += slots[static_cast<size_t>(f.from)];
      EXPECT_EQ(slots[0], truth) << "V=" << v;
    }
  }
}

TEST(Tree, AccumulatorMatchesTheSubtrees) {
  for (int v : {1, 2, 3, 5, 8, 13})
    for (int begin = 0; begin < v; ++begin)
      for (int end = begin + 1; end <= v; ++end) {
        std::vector<float> leaves;
        for (int i = 0; i < v; ++i) leaves.push_back(1.0f / static_cast<float>(3 + i));
        TreeAccumulator acc({begin, end}, v, 3);
        for (int round = 0; round < 2; ++round) {  // the second round reuses memory: it must start from zero
          for (int leaf = begin; leaf < end; ++leaf) {
            float* b = acc.open(leaf);
            for (int i = 0; i < 3; ++i) b[i] += leaves[static_cast<size_t>(leaf)];
            acc.close(leaf);
          }
          const auto parts = complete_subtrees({begin, end}, v);
          const auto sums = acc.partials();
          ASSERT_EQ(sums.size(), parts.size());
          for (size_t p = 0; p < parts.size(); ++p)
            EXPECT_EQ(sums[p][2], tree_value(leaves, parts[p].begin, parts[p].end));
          acc.reset();
        }
      }
}

// Whatever order virtual ranks come in: the same additions.
TEST(Tree, AccumulatorTakesLeavesInAnyOrder) {
  for (int v : {2, 3, 6, 8, 12})
    for (int stride : {1, 5, 7, 11}) {
      std::vector<float> leaves;
      for (int i = 0; i < v; ++i) leaves.push_back(1.0f / static_cast<float>(3 + i));
      if (std::gcd(v, stride) != 1) continue;
      TreeAccumulator acc({0, v}, v, 1);
      for (int i = 0; i < v; ++i) {
        const int leaf = (v - 1 + i * stride) % v;
        *acc.open(leaf) = leaves[static_cast<size_t>(leaf)];
        acc.close(leaf);
      }
      EXPECT_EQ(*acc.partials().at(0), tree_value(leaves, 0, v)) << v << " by " << stride;
    }
}

TEST(Tree, AccumulatorRefusesALeafTwiceAndPartialsTooEarly) {
  TreeAccumulator acc({2, 4}, 8, 1);
  EXPECT_THROW(acc.open(4), Error);
  acc.open(2);
  EXPECT_THROW(acc.open(3), Error);
  EXPECT_THROW(acc.close(3), Error);
  acc.close(2);
  EXPECT_THROW(acc.open(2), Error);
  EXPECT_THROW(acc.partials(), Error);
}

TEST(Tree, PartsThatAreNotNodesAreRefused) {
  EXPECT_THROW(fold_plan({{0, 3}, {3, 8}}, 8), Error);
  EXPECT_THROW(fold_plan({{0, 4}}, 8), Error);
}

TEST(Tree, ShardsAreWholeBlocks) {
  for (size_t elements : {size_t{0}, size_t{1}, size_t{1000}, size_t{1024}, size_t{10000}})
    for (int n = 1; n <= 8; ++n) {
      size_t next = 0;
      for (int w = 0; w < n; ++w) {
        const Shard s = shard_of(elements, n, w);
        EXPECT_EQ(s.begin, next);
        EXPECT_TRUE(s.begin % kShardBlock == 0 || s.begin == elements);
        next = s.end;
      }
      EXPECT_EQ(next, elements);
    }
}

}  // namespace
}  // namespace stoker::comm
