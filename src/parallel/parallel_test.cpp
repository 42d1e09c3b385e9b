#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/random.h"
#include "parallel/sharded_optimizer.h"

namespace stoker::parallel {
namespace {

constexpr size_t kElements = 10 * kShardUnit + 777;

TEST(ShardPlan, CutsCoverAndLieOnUnits) {
  for (size_t elements : {size_t{0}, size_t{1}, kShardUnit, kElements})
    for (int n = 1; n <= 9; ++n) {
      const auto cuts = shard_cuts(elements, n);
      EXPECT_EQ(cuts.front(), 0u);
      EXPECT_EQ(cuts.back(), elements);
      for (size_t c : cuts) EXPECT_TRUE(c % kShardUnit == 0 || c == elements);
    }
}

std::vector<std::vector<Range>> all_held(int stage, int n) {
  std::vector<std::vector<Range>> out;
  for (int r = 0; r < n; ++r) out.push_back(held_ranges(stage, kElements, n, r));
  return out;
}

// After any one worker's death everything is still in somebody's memory, and after the moves everybody has what it needs.
TEST(ShardPlan, OneDeathLosesNothing) {
  for (int stage : {0, 1})
    for (int n = 2; n <= 8; ++n)
      for (int dead = 0; dead < n; ++dead)
        for (int now = 1; now <= 8; ++now) {
          auto held = all_held(stage, n);
          held.erase(held.begin() + dead);
          held.resize(
              static_cast<size_t>(now));  // fewer: scaled down at the same time; more: newcomers hold nothing
          if (now < n - 1) continue;      // two at once may lose a shard: tested below
          const auto wanted = all_held(stage, now);
          const MovePlan plan = plan_moves(held, wanted);
          EXPECT_TRUE(plan.lost.empty()) << stage << " " << n << " " << dead << " " << now;
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

TEST(ShardPlan, TwoNeighboursLostAtOnceIsSaid) {
  auto held = all_held(1, 4);
  held[1].clear();
  held[2].clear();
  EXPECT_FALSE(plan_moves(held, all_held(1, 2)).lost.empty());
  EXPECT_THROW(held_ranges(4, 10, 2, 0), Error);
}

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
      return std::make_unique<ShardedOptimizer>(*stores[r], optim::OptimizerSettings{}, 1, n,
                                                static_cast<int>(r));
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
          const Range own = owned_range(elements, static_cast<int>(n), static_cast<int>(from));
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

TEST(ShardedOptimizer, MuonIsRefusedAboveStageZero) {
  nn::ParameterStore store(small_model(), Precision::kFp32, true);
  optim::OptimizerSettings muon;
  muon.kind = OptimizerKind::kMuon;
  EXPECT_THROW(ShardedOptimizer(store, muon, 1, 2, 0), Error);
}

}  // namespace
}  // namespace stoker::parallel
