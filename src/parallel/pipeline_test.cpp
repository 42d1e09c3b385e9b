#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/gradient_shards.h"
#include "parallel/pipeline_run.h"
#include "parallel/pipeline_schedule.h"

namespace stoker::parallel {
namespace {

LayoutSpec layout(int64_t pipeline, PipelineSchedule schedule, int64_t chunks = 1) {
  LayoutSpec l;
  l.pipeline = pipeline, l.schedule = schedule, l.virtual_stages = chunks;
  return l;
}

std::vector<PipelinePlan> plans(const LayoutSpec& l, int64_t micro_batches, int64_t per_leaf = 1 << 20) {
  std::vector<PipelinePlan> out;
  for (int64_t s = 0; s < l.pipeline; ++s) out.push_back(pipeline_plan(l, s, micro_batches, per_leaf));
  return out;
}

// Each chunk does every micro-batch's work once, in the order of micro-batches; nobody waits for ever; slots never collide.
TEST(PipelineSchedule, EveryPlanIsCompleteOrderedAndEnds) {
  for (const PipelineSchedule schedule :
       {PipelineSchedule::kOneForwardOneBackward, PipelineSchedule::kInterleaved,
        PipelineSchedule::kZeroBubble, PipelineSchedule::kAllForwardAllBackward})
    for (int64_t p : {1, 2, 3, 4, 6})
      for (int64_t v : {1, 2, 3})
        for (int64_t micro_batches : {1, 2, 3, 4, 7, 12})
          for (int64_t per_leaf : {1, 2, 100}) {
            if (v > 1 && (schedule != PipelineSchedule::kInterleaved || p == 1)) continue;
            const LayoutSpec l = layout(p, schedule, v);
            const auto all = plans(l, micro_batches, per_leaf);
            EXPECT_NO_THROW(simulate(l, all, 1, 1, 1));
            const bool split = schedule == PipelineSchedule::kZeroBubble && p > 1;
            for (const PipelinePlan& plan : all) {
              std::map<std::pair<PipelineWork, int>, int64_t> done;
              for (const PipelineAction& a : plan.actions) {
                int64_t& n = done[{a.work, a.chunk}];
                EXPECT_EQ(a.micro_batch, n++);
                const int64_t released =
                    done[{split ? PipelineWork::kWeights : PipelineWork::kBackward, a.chunk}];
                if (a.work == PipelineWork::kForward) {
                  EXPECT_LE(n - released, plan.slots[static_cast<size_t>(a.chunk)]);
                }
                if (split && a.work == PipelineWork::kBackward && a.micro_batch % per_leaf == 0) {
                  EXPECT_EQ((done[{PipelineWork::kWeights, a.chunk}]), a.micro_batch);
                }
              }
              for (int c = 0; c < v; ++c)
                for (PipelineWork w :
                     {PipelineWork::kForward, PipelineWork::kBackward, PipelineWork::kWeights})
                  EXPECT_EQ((done[{w, c}]), w == PipelineWork::kWeights && !split ? 0 : micro_batches);
            }
          }
}

// Bubbles in closed form, backward taking twice a forward's time: 1f1b and gpipe idle (P-1) of K+P-1 slots, interleaving divides
// the bubble by v; zero-bubble (three equal parts) leaves (P-1)(F+B-W) = P-1 of 3K+P-1 units (Qi et al., table 2).
TEST(PipelineSchedule, BubblesAreThoseOfThePapers) {
  for (int64_t p : {2, 4})
    for (int64_t k : {int64_t{8}, int64_t{16}}) {
      const double bubble = static_cast<double>(p - 1), full = static_cast<double>(k);
      const auto idle = [&](PipelineSchedule s, int64_t v, double b, double w) {
        const LayoutSpec l = layout(p, s, v);
        return simulate(l, plans(l, k), 1.0 / static_cast<double>(v), b / static_cast<double>(v), w).idle;
      };
      EXPECT_NEAR(idle(PipelineSchedule::kOneForwardOneBackward, 1, 2, 0), bubble / (full + bubble), 1e-9);
      EXPECT_NEAR(idle(PipelineSchedule::kAllForwardAllBackward, 1, 2, 0), bubble / (full + bubble), 1e-9);
      EXPECT_NEAR(idle(PipelineSchedule::kInterleaved, 2, 2, 0), bubble / 2 / (full + bubble / 2), 1e-9);
      EXPECT_LE(idle(PipelineSchedule::kZeroBubble, 1, 1, 1), bubble / (3 * full + bubble) + 1e-9);
    }
}

// What a worker knows of the first one never goes back, is never ahead of it, and is all it can know: when the last worker has the
// activation of a micro-batch, the first has done at least that forward.
TEST(PipelineSchedule, TheLastWorkerKnowsWhatTheFirstHasDone) {
  for (const PipelineSchedule schedule :
       {PipelineSchedule::kOneForwardOneBackward, PipelineSchedule::kInterleaved,
        PipelineSchedule::kZeroBubble, PipelineSchedule::kAllForwardAllBackward})
    for (int64_t p : {2, 3, 4}) {
      const LayoutSpec l = layout(p, schedule, schedule == PipelineSchedule::kInterleaved ? 2 : 1);
      const auto all = plans(l, 12, 1);
      const auto known = known_of_first(l, all, p - 1);
      ASSERT_EQ(known.size(), all.back().actions.size());
      EXPECT_TRUE(std::is_sorted(known.begin(), known.end()));
      EXPECT_LE(known.back(), all[0].actions.size());
      for (size_t i = 0; i < known.size(); ++i) {
        const PipelineAction& a = all.back().actions[i];
        const auto made = std::find(all[0].actions.begin(), all[0].actions.end(),
                                    PipelineAction{PipelineWork::kForward, a.chunk, a.micro_batch});
        if (a.work == PipelineWork::kForward) {
          EXPECT_GT(known[i], static_cast<size_t>(made - all[0].actions.begin()));
        }
      }
    }
}

// A tied embedding's gradient waits at the last worker for the lookups of the first: of a few virtual ranks, not of all.
TEST(PipelineRun, FewVirtualRanksAwaitTheirLookups) {
  for (int64_t p : {2, 3, 4})
    for (int64_t leaves : {8, 32}) {
      EXPECT_LE(PipelineRun::awaited_lookups(layout(p, PipelineSchedule::kOneForwardOneBackward), leaves, 1),
                static_cast<size_t>(p + 1));
      EXPECT_EQ(PipelineRun::awaited_lookups(layout(1, PipelineSchedule::kOneForwardOneBackward), leaves, 1),
                0u);
    }
}

TEST(PipelineSchedule, MemoryInFlight) {
  const LayoutSpec one = layout(4, PipelineSchedule::kOneForwardOneBackward);
  for (int64_t s = 0; s < 4; ++s) EXPECT_EQ(pipeline_plan(one, s, 16, 1).slots[0], 4 - s);
  EXPECT_EQ(pipeline_plan(layout(4, PipelineSchedule::kAllForwardAllBackward), 3, 16, 1).slots[0], 16);
  for (int64_t s = 0; s < 4; ++s)
    EXPECT_LE(pipeline_plan(layout(4, PipelineSchedule::kZeroBubble), s, 16, 100).slots[0], 7 - s);
}

// Every virtual rank of every part of a row once, and few buffers open however they are dealt.
TEST(Dealing, CoversTheTreeOnce) {
  for (int64_t data : {1, 2, 3, 7})
    for (int64_t context : {1, 2, 3})
      for (int64_t v : {1, 3, 8}) {
        const Dealing d{data, context, v};
        std::vector<int> times(static_cast<size_t>(d.leaves()), 0);
        for (int64_t round = 0; round < d.rounds(); ++round)
          for (int64_t w = 0; w < data * context; ++w)
            if (const int64_t leaf = d.leaf(w, round); leaf >= 0) ++times.at(static_cast<size_t>(leaf));
        EXPECT_TRUE(std::all_of(times.begin(), times.end(), [](int n) { return n == 1; }));
        EXPECT_LE(d.open_buffers(), static_cast<size_t>(5 * context));
      }
}

}  // namespace
}  // namespace stoker::parallel
