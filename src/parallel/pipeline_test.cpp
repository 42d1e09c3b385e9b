#include <gtest/gtest.h>

#include <map>

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

TEST(PipelineSchedule, MemoryInFlight) {
  const LayoutSpec one = layout(4, PipelineSchedule::kOneForwardOneBackward);
  for (int64_t s = 0; s < 4; ++s) EXPECT_EQ(pipeline_plan(one, s, 16, 1).slots[0], 4 - s);
  EXPECT_EQ(pipeline_plan(layout(4, PipelineSchedule::kAllForwardAllBackward), 3, 16, 1).slots[0], 16);
  for (int64_t s = 0; s < 4; ++s)
    EXPECT_LE(pipeline_plan(layout(4, PipelineSchedule::kZeroBubble), s, 16, 100).slots[0], 7 - s);
}

}  // namespace
}  // namespace stoker::parallel
