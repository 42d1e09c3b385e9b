// What a layout cannot do is refused before anything starts, and the two settings that do not go together are named with their values.
#include <gtest/gtest.h>

#include "train/recipe.h"

namespace stoker::train {
namespace {

constexpr const char* kRecipe = R"(
[run]
dir = "unused"
[model]
family = "llama"
layers = 4
hidden = 64
heads = 4
kv_heads = 2
ffn = 160
vocab = 514
[data]
path = "unused"
sequence_length = 36
[train]
steps = 1
global_batch = 8
micro_batch = 1
virtual_ranks = 8
)";

std::string refusal(const std::vector<std::string>& settings) {
  try {
    parse_recipe(kRecipe, "test", settings);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    return e.what();
  }
  return "";
}

TEST(RecipeLayout, EveryRefusalNamesTheTwoSettings) {
  struct Case {
    std::vector<std::string> settings;
    const char *one, *other;
  };
  const std::vector<Case> cases{
      {{"train.virtual_ranks=3"}, "train.global_batch (8)", "train.virtual_ranks (3)"},
      {{"train.micro_batch=3"}, "train.global_batch (8)", "train.micro_batch (3)"},
      {{"layout.pipeline=3"}, "model.layers (4)", "layout.pipeline x layout.virtual_stages (3)"},
      {{"layout.pipeline=4", "layout.virtual_stages=2", "layout.schedule=interleaved"},
       "model.layers (4)",
       "layout.pipeline x layout.virtual_stages (8)"},
      {{"layout.pipeline=2", "layout.virtual_stages=2"},
       "layout.virtual_stages is 2",
       "layout.schedule is 1f1b"},
      {{"layout.virtual_stages=2", "layout.schedule=interleaved"},
       "layout.virtual_stages is 2",
       "layout.pipeline is 1"},
      {{"layout.pipeline=2", "layout.schedule=zero-bubble", "train.recompute=full"},
       "layout.schedule is zero-bubble",
       "train.recompute is full"},
      {{"layout.tensor=3"}, "model.heads (4)", "layout.tensor (3)"},
      {{"layout.tensor=4"}, "model.kv_heads (2)", "layout.tensor (4)"},
      {{"layout.tensor=2", "model.ffn=161"}, "model.ffn (161)", "layout.tensor (2)"},
      {{"layout.tensor=2", "layout.zero_stage=1", "model.vocab=513"},
       "model.vocab (513)",
       "layout.tensor (2)"},
      {{"layout.tensor=2", "optimizer.name=muon"}, "layout.tensor is 2", "optimizer.name is muon"},
      {{"layout.zero_stage=1", "optimizer.name=muon"}, "layout.zero_stage is 1", "optimizer.name is muon"},
      {{"layout.sequence_parallel=true"}, "layout.sequence_parallel is on", "layout.tensor is 1"},
      {{"layout.tensor=2", "layout.sequence_parallel=true", "data.sequence_length=35"},
       "data.sequence_length / layout.context (35)",
       "layout.tensor (2)"},
      {{"layout.context=4"}, "data.sequence_length (36)", "2 x layout.context (4)"},
  };
  for (const Case& c : cases) {
    const std::string said = refusal(c.settings);
    EXPECT_NE(said.find(c.one), std::string::npos) << c.one << ": " << said;
    EXPECT_NE(said.find(c.other), std::string::npos) << c.other << ": " << said;
  }
}

// Everything else goes together.
TEST(RecipeLayout, ShardsGoWithEveryWayOfSplitting) {
  for (const char* zero : {"layout.zero_stage=1", "layout.zero_stage=2", "layout.zero_stage=3"})
    for (const std::vector<std::string>& split : std::vector<std::vector<std::string>>{
             {"layout.pipeline=4"},
             {"layout.pipeline=2", "layout.schedule=interleaved", "layout.virtual_stages=2",
              "model.tied_embeddings=true"},
             {"layout.pipeline=2", "layout.schedule=zero-bubble"},
             {"layout.tensor=2", "layout.sequence_parallel=true"},
             {"layout.context=2", "layout.pipeline=2", "layout.tensor=2"}}) {
      std::vector<std::string> settings = split;
      settings.push_back(zero);
      EXPECT_EQ(refusal(settings), "") << fmt::format("{}", fmt::join(settings, " "));
    }
}

}  // namespace
}  // namespace stoker::train
