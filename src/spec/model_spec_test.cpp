#include <gtest/gtest.h>

#include "base/error.h"
#include "spec/parameter_table.h"

namespace stoker {
namespace {

ModelSpec gpt2_124m() {
  ModelSpec s;
  s.family = Family::kGpt2;
  s.layers = 12, s.hidden = 768, s.heads = 12, s.kv_heads = 12, s.head_dim = 64, s.ffn = 3072,
  s.vocab = 50257;
  s.max_positions = 1024;
  s.norm = NormKind::kLayerNorm, s.activation = ActivationKind::kGelu, s.position = PositionKind::kLearned;
  s.tied_embeddings = s.linear_bias = true;
  return s;
}

ModelSpec llama3_8b() {
  ModelSpec s;
  s.layers = 32, s.hidden = 4096, s.heads = 32, s.kv_heads = 8, s.head_dim = 128, s.ffn = 14336,
  s.vocab = 128256;
  s.max_positions = 8192;
  return s;
}

TEST(ParameterCount, PublishedModels) {
  EXPECT_EQ(parameter_count(gpt2_124m()), 124439808);   // openai-community/gpt2
  EXPECT_EQ(parameter_count(llama3_8b()), 8030261248);  // meta-llama/Meta-Llama-3-8B
  ModelSpec mixtral = llama3_8b();                      // mistralai/Mixtral-8x7B-v0.1: 46.7 B, 12.9 B active
  mixtral.vocab = 32000, mixtral.experts = 8, mixtral.experts_per_token = 2, mixtral.expert_ffn = 14336;
  EXPECT_EQ(parameter_count(mixtral), 46702792704);
  EXPECT_EQ(active_parameter_count(mixtral), 12879925248);
}

TEST(ModelSpec, ErrorsNameTheField) {
  ModelSpec s = llama3_8b();
  s.kv_heads = 7;
  try {
    validate(s);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("model.kv_heads (7)"), std::string::npos) << e.what();
  }
}

TEST(Flops, LlamaShaped124M) {
  ModelSpec s;
  s.layers = 12, s.hidden = 768, s.heads = 12, s.kv_heads = 12, s.head_dim = 64, s.ffn = 2048,
  s.vocab = 50304;
  s.max_positions = 1024, s.tied_embeddings = true;
  EXPECT_NEAR(train_flops_per_token(s, 1024), 0.8547e9, 1e6);
}

}  // namespace
}  // namespace stoker
