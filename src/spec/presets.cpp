#include "spec/presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/edit_distance.h"
#include "base/error.h"

namespace stoker {
namespace {

ModelSpec gpt2(int64_t layers, int64_t hidden, int64_t heads, int64_t vocab = 50257) {
  ModelSpec s;
  s.family = Family::kGpt2;
  s.layers = layers, s.hidden = hidden, s.heads = s.kv_heads = heads, s.head_dim = hidden / heads,
  s.ffn = 4 * hidden;
  s.vocab = vocab, s.max_positions = 1024;
  s.norm = NormKind::kLayerNorm, s.activation = ActivationKind::kGelu, s.position = PositionKind::kLearned;
  s.tied_embeddings = s.linear_bias = true;
  return s;
}

struct LlamaShape {
  int64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, positions;
  double theta = 10000, eps = 1e-5;
  bool tied = false;
};

ModelSpec llama(const LlamaShape& shape, Family family = Family::kLlama) {
  ModelSpec s;
  s.family = family;
  s.layers = shape.layers, s.hidden = shape.hidden, s.heads = shape.heads, s.kv_heads = shape.kv_heads;
  s.head_dim = shape.head_dim, s.ffn = shape.ffn, s.vocab = shape.vocab, s.max_positions = shape.positions;
  s.rope_theta = shape.theta, s.norm_eps = shape.eps, s.tied_embeddings = shape.tied;
  s.qkv_bias = family == Family::kQwen2, s.qk_norm = family == Family::kQwen3;
  return s;
}

ModelSpec with_llama3_rope(ModelSpec s, double factor) {
  s.rope_scaling = {RopeScalingKind::kLlama3, factor, 1, 4, 8192};
  return s;
}

ModelSpec with_window(ModelSpec s, int64_t window) {
  s.sliding_window = window;
  return s;
}

struct Preset {
  const char* name;
  ModelSpec spec;
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"gpt2", gpt2(12, 768, 12)},
      {"gpt2-medium", gpt2(24, 1024, 16)},
      {"gpt2-large", gpt2(36, 1280, 20)},
      {"gpt2-xl", gpt2(48, 1600, 25)},
      {"llama-124m", llama({12, 768, 12, 12, 64, 2048, 50304, 1024, 10000, 1e-5, true})},
      {"tinyllama-1.1b", llama({22, 2048, 32, 4, 64, 5632, 32000, 2048})},
      {"llama-2-7b", llama({32, 4096, 32, 32, 128, 11008, 32000, 4096})},
      {"llama-2-13b", llama({40, 5120, 40, 40, 128, 13824, 32000, 4096})},
      {"llama-2-70b", llama({80, 8192, 64, 8, 128, 28672, 32000, 4096})},
      {"llama-3-8b", llama({32, 4096, 32, 8, 128, 14336, 128256, 8192, 500000})},
      {"llama-3-70b", llama({80, 8192, 64, 8, 128, 28672, 128256, 8192, 500000})},
      {"llama-3.1-8b", with_llama3_rope(llama({32, 4096, 32, 8, 128, 14336, 128256, 131072, 500000}), 8)},
      {"llama-3.1-405b",
       with_llama3_rope(llama({126, 16384, 128, 8, 128, 53248, 128256, 131072, 500000}), 8)},
      {"llama-3.2-1b",
       with_llama3_rope(llama({16, 2048, 32, 8, 64, 8192, 128256, 131072, 500000, 1e-5, true}), 32)},
      {"mistral-7b", with_window(llama({32, 4096, 32, 8, 128, 14336, 32000, 32768}, Family::kMistral), 4096)},
      {"qwen2.5-0.5b", llama({24, 896, 14, 2, 64, 4864, 151936, 32768, 1e6, 1e-6, true}, Family::kQwen2)},
      {"qwen2.5-1.5b", llama({28, 1536, 12, 2, 128, 8960, 151936, 131072, 1e6, 1e-6, true}, Family::kQwen2)},
      {"qwen2.5-7b", llama({28, 3584, 28, 4, 128, 18944, 152064, 131072, 1e6, 1e-6}, Family::kQwen2)},
      {"qwen3-0.6b", llama({28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6, 1e-6, true}, Family::kQwen3)},
      {"qwen3-8b", llama({36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6, 1e-6}, Family::kQwen3)},
  };
  return all;
}

}  // namespace

std::vector<std::string> model_preset_names() {
  std::vector<std::string> names;
  for (const Preset& p : presets()) names.emplace_back(p.name);
  return names;
}

ModelSpec model_preset(std::string_view name) {
  for (const Preset& p : presets())
    if (name == p.name) return p.spec;
  std::vector<std::string> names = model_preset_names();
  const std::string_view start = name.substr(0, 64);
  std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(start, a) < edit_distance(start, b);
  });
  fail(ErrorKind::kUsage, "model preset '{}' is not known: expected one of {}", start,
       fmt::join(names, ", "));
}

}  // namespace stoker
