#include "spec/hf_config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "spec/presets.h"

namespace stoker {
namespace {

std::string golden(const std::string& model) {
  std::ifstream in(std::string(STOKER_SOURCE_DIR) + "/tests/golden/models/" + model + "/config.json");
  EXPECT_TRUE(in) << model;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Error error_of(const std::string& text) {
  try {
    parse_hf_config(text, "config.json");
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error for " << text;
  return {ErrorKind::kInternal, ""};
}

std::string edited(const std::string& model, const std::string& key, nlohmann::json value) {
  nlohmann::json j = nlohmann::json::parse(golden(model));
  j[key] = std::move(value);
  return j.dump();
}

TEST(HfConfig, ReadsWhatTransformersSaves) {
  const ModelSpec g = parse_hf_config(golden("gpt2"), "c").model;
  EXPECT_EQ(g.family, Family::kGpt2);
  EXPECT_EQ(g.layers, 2);
  EXPECT_EQ(g.ffn, 128);
  EXPECT_EQ(g.max_positions, 32);
  EXPECT_TRUE(g.tied_embeddings && g.linear_bias);
  EXPECT_EQ(g.norm, NormKind::kLayerNorm);

  const HfConfig l = parse_hf_config(golden("llama3"), "c");
  EXPECT_EQ(l.dtype, "float32");
  EXPECT_EQ(l.bos_token, 1);
  EXPECT_EQ(l.eos_token, 2);
  EXPECT_EQ(l.model.heads, 4);
  EXPECT_EQ(l.model.kv_heads, 2);
  EXPECT_EQ(l.model.head_dim, 16);
  EXPECT_TRUE(l.model.tied_embeddings);
  EXPECT_EQ(l.model.rope_theta, 500000);
  EXPECT_EQ(l.model.rope_scaling, (RopeScaling{RopeScalingKind::kLlama3, 8, 1, 4, 16}));
  EXPECT_EQ(l.model.norm_eps, 1e-6);

  const ModelSpec linear = parse_hf_config(golden("llama_linear_rope"), "c").model;
  EXPECT_EQ(linear.rope_scaling.kind, RopeScalingKind::kLinear);
  EXPECT_EQ(linear.rope_scaling.factor, 2.5);

  EXPECT_EQ(parse_hf_config(golden("mistral"), "c").model.sliding_window, 5);
  const ModelSpec q2 = parse_hf_config(golden("qwen2"), "c").model;
  EXPECT_TRUE(q2.qkv_bias);
  EXPECT_FALSE(q2.qk_norm);
  EXPECT_EQ(q2.sliding_window, 0);
  const ModelSpec q3 = parse_hf_config(golden("qwen3"), "c").model;
  EXPECT_TRUE(q3.qk_norm && q3.tied_embeddings);
  EXPECT_EQ(q3.head_dim, 12);
}

TEST(HfConfig, OlderSpellings) {
  const ModelSpec s =
      parse_hf_config(R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64,
    "intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":100,"rope_theta":5e5,"torch_dtype":"bfloat16",
    "rope_scaling":{"type":"linear","factor":2}})",
                      "c")
          .model;
  EXPECT_EQ(s.kv_heads, 4);
  EXPECT_EQ(s.head_dim, 16);
  EXPECT_EQ(s.max_positions, 2048);
  EXPECT_EQ(s.rope_theta, 5e5);
  EXPECT_EQ(s.rope_scaling.kind, RopeScalingKind::kLinear);
  const HfConfig several_ends = parse_hf_config(edited("llama", "eos_token_id", {7, 8, 9}), "c");
  EXPECT_EQ(several_ends.eos_token, 7);
}

TEST(HfConfig, RoundTripsEveryPreset) {
  for (const std::string& name : model_preset_names()) {
    HfConfig c;
    c.model = model_preset(name);
    c.dtype = "bfloat16";
    c.eos_token = 3;
    const HfConfig back = parse_hf_config(to_hf_config(c), name);
    EXPECT_EQ(back.model, c.model) << name;
    EXPECT_EQ(back.dtype, "bfloat16");
    EXPECT_EQ(back.eos_token, 3);
    EXPECT_EQ(back.bos_token, std::nullopt);
    EXPECT_TRUE(back.warnings.empty());
  }
  HfConfig c;
  c.eos_token = 3;
  EXPECT_EQ(nlohmann::json::parse(to_hf_generation_config(c))["eos_token_id"], 3);
}

TEST(HfConfig, ErrorsNameTheField) {
  struct Case {
    std::string text;
    ErrorKind kind;
    const char* says;
  };
  nlohmann::json no_hidden = nlohmann::json::parse(golden("llama"));
  no_hidden.erase("hidden_size");
  const std::vector<Case> cases = {
      {"{", ErrorKind::kData, "config.json: not valid JSON"},
      {"[]", ErrorKind::kData, "expected a JSON object"},
      {"{}", ErrorKind::kData, "'model_type' is missing"},
      {no_hidden.dump(), ErrorKind::kData, "'hidden_size' is missing: expected a whole number"},
      {edited("llama", "hidden_size", "big"), ErrorKind::kData,
       "'hidden_size' is \"big\": expected a whole number"},
      {edited("llama", "hidden_size", 1.5), ErrorKind::kData, "'hidden_size' is 1.5"},
      {edited("llama", "hidden_size", 18446744073709551615u), ErrorKind::kData, "expected a whole number"},
      {edited("llama", "num_hidden_layers", -1), ErrorKind::kUsage, "model.layers is -1"},
      {edited("llama", "num_key_value_heads", 3), ErrorKind::kUsage, "model.kv_heads (3)"},
      {edited("llama", "model_type", "mixtral"), ErrorKind::kUsage, "Supported: model_type gpt2, llama"},
      {edited("llama", "architectures", {"LlamaForSequenceClassification"}), ErrorKind::kUsage,
       "LlamaForCausalLM"},
      {edited("llama", "hidden_act", "gelu"), ErrorKind::kUsage,
       "'hidden_act' is \"gelu\": not supported. Supported: silu"},
      {edited("llama", "attention_bias", true), ErrorKind::kUsage, "'attention_bias'"},
      {edited("llama", "mlp_bias", true), ErrorKind::kUsage, "'mlp_bias'"},
      {edited("llama", "rope_parameters", {{"rope_type", "yarn"}}), ErrorKind::kUsage,
       "Supported: default, linear, llama3"},
      {edited("llama", "rope_parameters", {{"rope_type", "llama3"}}), ErrorKind::kData,
       "rope_parameters: field 'factor' is missing"},
      {edited("llama", "quantization_config", {{"bits", 4}}), ErrorKind::kUsage, "'quantization_config'"},
      {edited("llama", "dtype", "float8_e4m3fn"), ErrorKind::kUsage, "'dtype'"},
      {edited("gpt2", "activation_function", "relu"), ErrorKind::kUsage, "gelu_new"},
      {edited("gpt2", "scale_attn_weights", false), ErrorKind::kUsage, "'scale_attn_weights'"},
      {edited("qwen2", "use_sliding_window", 1), ErrorKind::kData, "true or false"},
  };
  for (const Case& c : cases) {
    const Error e = error_of(c.text);
    EXPECT_EQ(e.kind(), c.kind) << e.what();
    EXPECT_NE(std::string(e.what()).find(c.says), std::string::npos) << e.what();
  }
}

TEST(HfConfig, DropoutIsAWarning) {
  const HfConfig c = parse_hf_config(edited("gpt2", "attn_pdrop", 0.1), "config.json");
  ASSERT_EQ(c.warnings.size(), 1u);
  EXPECT_NE(c.warnings[0].find("attn_pdrop"), std::string::npos);
}

TEST(HfConfig, MixedAttentionIsRefused) {
  nlohmann::json j = nlohmann::json::parse(golden("qwen2"));
  j["use_sliding_window"] = true, j["sliding_window"] = 8, j["max_window_layers"] = 1;
  j["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_EQ(error_of(j.dump()).kind(), ErrorKind::kUsage);
  j.erase("layer_types");
  EXPECT_EQ(error_of(j.dump()).kind(), ErrorKind::kUsage);
  j["max_window_layers"] = 0;
  EXPECT_EQ(parse_hf_config(j.dump(), "c").model.sliding_window, 8);
}

TEST(HfConfig, ASpecThatItsFamilyCannotExpressIsRefused) {
  HfConfig c;
  c.model = model_preset("llama-124m");
  c.model.qkv_bias = true;
  try {
    to_hf_config(c);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("model.qkv_bias"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace stoker
