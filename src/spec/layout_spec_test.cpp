#include "spec/layout_spec.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "spec/run_spec.h"

namespace stoker {
namespace {

ModelSpec small() {
  ModelSpec m;
  m.layers = 8, m.hidden = 512, m.heads = 8, m.kv_heads = 4, m.head_dim = 64, m.ffn = 1024;
  m.vocab = 1000, m.max_positions = 2048;
  return m;
}

std::string usage_message(const LayoutSpec& l, const ModelSpec& m = small(), BatchSpec b = {64, 1, 1024}) {
  try {
    validate(l, m, b);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    return e.what();
  }
  return "";
}

TEST(Layout, ErrorsNameTheTwoFieldsThatDoNotDivide) {
  struct Case {
    LayoutSpec layout;
    const char *first, *second;
  };
  LayoutSpec heads, kv, ffn, layers, batch, zero, context, rows, rounds;
  heads.tensor = 16;
  kv.tensor = 3, ffn.tensor = 6;
  rows.tensor = 8, rows.sequence_parallel = true, rows.context = 256;
  rounds.pipeline = 4, rounds.virtual_stages = 2, rounds.schedule = PipelineSchedule::kInterleaved;
  rounds.data = 32;
  layers.pipeline = 3;
  batch.data = 7;
  zero.data = 8, zero.zero_stage = 1, zero.zero_group = 3;
  context.context = 3;
  for (const Case& c : {Case{heads, "model.heads (8)", "layout.tensor (16)"},
                        {layers, "model.layers (8)", "layout.pipeline x layout.virtual_stages (3)"},
                        {batch, "batch.global_batch (64)", "layout.data (7)"},
                        {zero, "layout.data x layout.context (8)", "layout.zero_group (3)"},
                        {context, "batch.sequence_length (1024)", "layout.context (3)"},
                        {rows, "batch.sequence_length (1024)", "layout.tensor (sequence parallel) (2048)"},
                        {rounds, "batch.global_batch / (micro_batch x data) (2)", "layout.pipeline (4)"},
                        {kv, "model.kv_heads (4)", "layout.tensor (3)"},
                        {ffn, "model.ffn (1024)", "layout.tensor (6)"}}) {
    ModelSpec m = small();
    if (c.layout == kv) m.heads = 12;
    if (c.layout == ffn) m.heads = 12, m.kv_heads = 6;
    const std::string message = usage_message(c.layout, m);
    EXPECT_NE(message.find(c.first), std::string::npos) << message;
    EXPECT_NE(message.find(c.second), std::string::npos) << message;
  }
}

TEST(Layout, ExpertsOnADenseModelAreRefused) {
  LayoutSpec l;
  l.data = 8, l.expert = 4;
  EXPECT_NE(usage_message(l).find("layout.expert is 4"), std::string::npos);
  ModelSpec m = small();
  m.experts = 6, m.experts_per_token = 2, m.expert_ffn = 256;
  EXPECT_NE(usage_message(l, m).find("model.experts (6)"), std::string::npos);
}

TEST(Layout, SequenceParallelAndChunksNeedTheirPartner) {
  LayoutSpec l;
  l.sequence_parallel = true;
  EXPECT_NE(usage_message(l).find("sequence_parallel"), std::string::npos);
  LayoutSpec v;
  v.virtual_stages = 2;
  EXPECT_NE(usage_message(v).find("virtual_stages"), std::string::npos);
}

TEST(Layout, EveryRankHasItsOwnCoordinatesAndComesBack) {
  LayoutSpec l;
  l.data = 3, l.tensor = 2, l.pipeline = 4, l.context = 5;
  std::set<std::array<int64_t, 4>> seen;
  for (int64_t r = 0; r < l.world_size(); ++r) {
    const MeshCoordinates at = mesh_coordinates(l, r);
    EXPECT_EQ(mesh_rank(l, at), r);
    seen.insert({at.data, at.tensor, at.pipeline, at.context});
  }
  EXPECT_EQ(seen.size(), 120u);
  EXPECT_THROW(mesh_coordinates(l, 120), Error);
}

TEST(Layout, GroupsPartitionTheWorld) {
  LayoutSpec l;
  l.data = 3, l.tensor = 2, l.pipeline = 2, l.context = 2;
  for (MeshAxis axis : {MeshAxis::kData, MeshAxis::kTensor, MeshAxis::kPipeline, MeshAxis::kContext}) {
    std::multiset<int64_t> covered;
    for (int64_t r = 0; r < l.world_size(); ++r) {
      const std::vector<int64_t> group = mesh_group(l, r, axis);
      EXPECT_NE(std::find(group.begin(), group.end(), r), group.end());
      if (group.front() == r) covered.insert(group.begin(), group.end());
    }
    EXPECT_EQ(covered.size(), 24u);
    EXPECT_EQ(std::set<int64_t>(covered.begin(), covered.end()).size(), 24u);
  }
  EXPECT_EQ(mesh_group(l, 0, MeshAxis::kTensor), (std::vector<int64_t>{0, 1}));
}

TEST(Layout, PipelineChunksCoverEveryLayerOnce) {
  LayoutSpec l;
  l.pipeline = 4, l.virtual_stages = 3, l.schedule = PipelineSchedule::kInterleaved;
  std::set<int64_t> seen;
  for (int64_t s = 0; s < 4; ++s)
    for (int64_t c = 0; c < 3; ++c) {
      const auto [from, to] = pipeline_layers(l, 24, s, c);
      for (int64_t i = from; i < to; ++i) EXPECT_TRUE(seen.insert(i).second);
    }
  EXPECT_EQ(seen.size(), 24u);
  EXPECT_EQ(pipeline_layers(l, 24, 1, 1).first, 10);
}

TEST(Layout, BatchCountsMicroBatches) {
  LayoutSpec l;
  l.data = 4;
  EXPECT_EQ((BatchSpec{64, 2, 128}).micro_batches(l), 8);
  EXPECT_EQ(to_string(l), "dp4 tp1 pp1");
}

}  // namespace
}  // namespace stoker
