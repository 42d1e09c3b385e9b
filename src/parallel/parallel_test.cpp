#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/random.h"
#include "parallel/holdings.h"
#include "parallel/sharded_optimizer.h"
#include "spec/tensor_share.h"

namespace stoker::parallel {
namespace {

ModelSpec small_model() {
  ModelSpec m;
  m.layers = 2;
  m.hidden = 64;
  m.heads = 4;
  m.kv_heads = 4;
  m.head_dim = 16;
  m.ffn = 256;
  m.vocab = 3000;
  m.max_positions = 64;
  return m;
}

LayoutSpec layout(int64_t data, int64_t zero_stage, int64_t pipeline = 1) {
  LayoutSpec l;
  l.data = data, l.zero_stage = zero_stage, l.pipeline = pipeline;
  return l;
}

// Every worker of an axis owns a part, together all of the stage's parameters once; every stage's together all of the model's.
TEST(Holdings, OwnedPartsCoverTheModelOnce) {
  for (const bool tied : {false, true})
    for (int64_t pipeline : {1, 2})
      for (int64_t zero : {0, 1, 2, 3})
        for (int64_t n = 1; n <= 9; ++n) {
          ModelSpec m = small_model();
          m.tied_embeddings = tied;
          std::vector<int> times(static_cast<size_t>(parameter_count(m)), 0);
          std::vector<int> blocks(count_blocks(m), 0);
          for (int64_t stage = 0; stage < pipeline; ++stage) {
            const Holdings h(m, layout(n, zero, pipeline), stage);
            for (int64_t w = 0; w < n; ++w) {
              for (const Range& r : h.owned(n, w))
                for (size_t i = r.begin; i < r.end; ++i) ++times[i];
              for (const HeldFold& f : h.folds()) {
                EXPECT_EQ(h.cuts(f, n).back(), f.size());
                // What lies before a shard is mirrored: a row across the cut is whole where it ends.
                const auto mine = h.owned_blocks(f, n, w), before = h.owned_blocks(f, n, (w + n - 1) % n);
                if (!mine.empty() && mine.front().local > f.begin) {
                  ASSERT_FALSE(before.empty());
                  EXPECT_EQ(before.back().local + before.back().size, mine.front().local);
                }
                for (const HeldBlock& b : h.owned_blocks(f, n, w)) ++blocks[b.number];
              }
            }
          }
          EXPECT_TRUE(std::all_of(times.begin(), times.end(), [](int t) { return t == 1; })) << pipeline << n;
          EXPECT_TRUE(std::all_of(blocks.begin(), blocks.end(), [](int t) { return t == 1; }));
        }
}

// Shares of the width: every element of all shares has one owner, and every element of the model counts once in the norm.
TEST(Holdings, SharesOfAWidthCountEveryParameterOnce) {
  for (const int64_t context : {1, 2})
    for (const int64_t zero : {0, 1}) {
      ModelSpec m = small_model();
      m.vocab = 3001;  // the second share has a token more
      LayoutSpec l = layout(2, zero, 2);
      l.tensor = 2, l.context = context;
      size_t all = share_offset(m, {2, 1}) + static_cast<size_t>(parameter_count(tensor_share(m, {2, 1})));
      std::vector<int> times(all, 0), blocks(count_blocks(m, 2), 0);
      int64_t counted = 0;
      for (int64_t t = 0; t < 2; ++t)
        for (int64_t stage = 0; stage < 2; ++stage) {
          const Holdings h(m, l, stage, t);
          for (int64_t w = 0; w < replicas(l); ++w) {
            for (const Range& r : h.owned(replicas(l), w))
              for (size_t i = r.begin; i < r.end; ++i) ++times[i];
            for (const HeldFold& f : h.folds())
              for (const HeldBlock& b : h.owned_blocks(f, replicas(l), w)) {
                ++blocks[b.number];
                for (const Range& r : h.counted(b)) counted += static_cast<int64_t>(r.size());
              }
          }
        }
      EXPECT_TRUE(std::all_of(times.begin(), times.end(), [](int n) { return n == 1; }));
      EXPECT_TRUE(std::all_of(blocks.begin(), blocks.end(), [](int n) { return n == 1; }));
      EXPECT_EQ(counted, parameter_count(m));
      // A death in one of two replicas loses nothing.
      std::vector<std::vector<Range>> held, wanted;
      for (int64_t r = 0; r < l.world_size(); ++r) held.push_back(held_ranges(m, l, r));
      held.erase(held.begin() + 3);
      l.data = 1;
      for (int64_t r = 0; r < static_cast<int64_t>(held.size()); ++r) wanted.push_back(held_ranges(m, l, r));
      EXPECT_TRUE(plan_moves(held, wanted).lost.empty());
    }
}

std::vector<std::vector<Range>> all_held(const LayoutSpec& l) {
  std::vector<std::vector<Range>> out;
  for (int64_t r = 0; r < l.world_size(); ++r) out.push_back(held_ranges(small_model(), l, r));
  return out;
}

// After any one worker's death everything is still in somebody's memory, and after the moves everybody has what it needs.
TEST(ShardPlan, OneDeathLosesNothing) {
  for (int64_t pipeline : {1, 2})
    for (int64_t zero : {0, 1, 2})
      for (int64_t n = 2; n <= 5; ++n)
        for (int64_t dead = 0; dead < n * pipeline; ++dead)
          for (int64_t now : {n - 1, n, n + 1}) {
            auto held = all_held(layout(n, zero, pipeline));
            held.erase(held.begin() + dead);
            const auto wanted = all_held(layout(now, zero, pipeline));
            held.resize(std::max(held.size(), wanted.size()));  // newcomers hold nothing
            const MovePlan plan = plan_moves(held, wanted);
            EXPECT_TRUE(plan.lost.empty()) << zero << " " << n << " " << dead << " " << now;
            auto after = held;
            for (const Move& m : plan.moves) {
              EXPECT_NE(m.from, m.to);
              after[static_cast<size_t>(m.to)].push_back(m.range);
            }
            for (size_t r = 0; r < wanted.size(); ++r)
              for (const Range& w : wanted[r])
                for (size_t x = w.begin; x < w.end; x += kShardUnit / 2) {
                  bool found = false;
                  for (const Range& h : after[r]) found |= h.begin <= x && x < h.end;
                  EXPECT_TRUE(found);
                }
          }
}

TEST(ShardPlan, WhatNobodyHoldsIsSaid) {
  auto held = all_held(layout(4, 1));
  held[1].clear();
  held[2].clear();
  EXPECT_FALSE(plan_moves(held, all_held(layout(2, 1))).lost.empty());
  auto line = all_held(layout(1, 0, 2));  // nobody else has a stage of the only pipeline
  line[1].clear();
  EXPECT_FALSE(plan_moves(line, all_held(layout(1, 0, 2))).lost.empty());
}

void fill_gradients(nn::ParameterStore& store, uint64_t step) {
  float* g = store.grads().as<float>();
  for (int64_t i = 0; i < store.grads().count(); ++i)
    g[i] = random_normal({5, step}, static_cast<uint64_t>(i));
}

TEST(ShardedOptimizer, PiecesGiveTheBitsOfTheWhole) {
  ops::Context context;
  const auto final_values = [&](int workers, int change) {
    std::vector<float> out;
    std::vector<std::unique_ptr<nn::ParameterStore>> stores;
    std::vector<std::unique_ptr<ShardedOptimizer>> optimizers;
    const auto place = [&](size_t r, int n) {
      return std::make_unique<ShardedOptimizer>(
          *stores[r], optim::OptimizerSettings{},
          held_ranges(small_model(), layout(n, 1), static_cast<int64_t>(r)));
    };
    for (int r = 0; r < workers; ++r) {
      stores.push_back(std::make_unique<nn::ParameterStore>(small_model(), Precision::kFp32, true));
      stores.back()->init(3, 0.02f);
      optimizers.push_back(place(static_cast<size_t>(r), workers));
    }
    const auto elements = static_cast<size_t>(stores[0]->values().count());
    for (int step = 1; step <= 4; ++step) {
      const size_t n = stores.size();
      for (size_t r = 0; r < n; ++r) {
        fill_gradients(*stores[r], static_cast<uint64_t>(step));
        optimizers[r]->update(context, {1e-3f, step, 0.5f});
      }
      for (size_t to = 0; to < n; ++to)
        for (size_t from = 0; from < n; ++from) {
          const auto workers_now = static_cast<int64_t>(n);
          for (const Range& own : Holdings(small_model(), layout(workers_now, 1), 0)
                                      .owned(workers_now, static_cast<int64_t>(from)))
            std::memcpy(stores[to]->values().as<float>() + own.begin,
                        stores[from]->values().as<float>() + own.begin, own.size() * sizeof(float));
        }
      if (step != change || n < 2) continue;
      stores.erase(stores.begin() + 1);
      optimizers.erase(optimizers.begin() + 1);
      std::vector<std::vector<Range>> held, wanted;
      std::vector<std::unique_ptr<ShardedOptimizer>> next;
      for (size_t r = 0; r + 1 < n; ++r) {
        held.push_back(optimizers[r]->ranges());
        next.push_back(place(r, static_cast<int>(n) - 1));
        next.back()->take_state(*optimizers[r]);
        wanted.push_back(next.back()->ranges());
      }
      const MovePlan plan = plan_moves(held, wanted);
      EXPECT_TRUE(plan.lost.empty());
      for (const Move& m : plan.moves) {
        const auto& source = *optimizers[static_cast<size_t>(m.from)];
        std::vector<float> wire(source.packed_floats(m.range));
        source.pack(m.range, wire.data());
        EXPECT_EQ(next[static_cast<size_t>(m.to)]->packed_floats(m.range), wire.size());
        next[static_cast<size_t>(m.to)]->unpack(m.range, wire.data());
      }
      optimizers = std::move(next);
    }
    const float* v = stores[0]->values().as<float>();
    out.assign(v, v + elements);
    return out;
  };
  const auto truth = final_values(1, 0);
  for (int workers : {2, 3, 4, 7})
    for (int change : {0, 2})
      EXPECT_EQ(0,
                std::memcmp(final_values(workers, change).data(), truth.data(), truth.size() * sizeof(float)))
          << workers << " workers, death after step " << change;
}

TEST(ShardedOptimizer, MuonTakesNoPieces) {
  nn::ParameterStore store(small_model(), Precision::kFp32, true);
  optim::OptimizerSettings muon;
  muon.kind = OptimizerKind::kMuon;
  EXPECT_THROW(ShardedOptimizer(store, muon, held_ranges(small_model(), layout(4, 1), 0)), Error);
}

}  // namespace
}  // namespace stoker::parallel
