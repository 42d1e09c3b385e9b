// spec/model_spec.h
// What a transformer is, as plain numbers: enough to build it, to count its parameters and FLOPs, and to plan
// it. Letters (docs/notation.md): L layers, D hidden, H heads, K kv_heads, Dh head_dim, F ffn, V vocab, T
// sequence length.
#pragma once
#include <cstdint>
#include <string>

namespace stoker {

enum class Family {
  kGpt2,
  kLlama,
  kMistral,
  kQwen2,
  kQwen3
};  // decides names and config.json, not arithmetic
enum class NormKind { kRmsNorm, kLayerNorm };
enum class ActivationKind { kSwiGlu, kGelu };  // kGelu: the tanh form that GPT-2 was trained with
enum class PositionKind { kRope, kLearned };
enum class RopeScalingKind { kNone, kLinear, kLlama3 };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // kLlama3 only
  int64_t original_max_positions = 8192;             // kLlama3 only
  bool operator==(const RopeScaling&) const = default;
};

struct ModelSpec {
  Family family = Family::kLlama;
  int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0,
          max_positions = 0;
  NormKind norm = NormKind::kRmsNorm;
  double norm_eps = 1e-5;
  ActivationKind activation = ActivationKind::kSwiGlu;
  PositionKind position = PositionKind::kRope;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tied_embeddings = false;
  bool qkv_bias = false;       // Qwen2
  bool linear_bias = false;    // GPT-2: every linear layer and norm has one
  bool qk_norm = false;        // Qwen3: RMSNorm over each head of q and k
  int64_t sliding_window = 0;  // Mistral v0.1: a key is visible for this many positions; 0: all
  // Mixture of experts (planned, not trained): experts 0 means dense.
  int64_t experts = 0, experts_per_token = 0, expert_ffn = 0, shared_expert_ffn = 0;
  int64_t dense_layers = 0;  // the first ones, with a plain feed-forward of width ffn instead of experts
  bool operator==(const ModelSpec&) const = default;
};

// Throws Usage naming the field, its value and what would be valid.
void validate(const ModelSpec& spec);

std::string_view to_string(Family family);

// Model FLOPs per token of one training step (forward and backward) in the convention of PaLM (Chowdhery et
// al. 2022, appendix B): 6 FLOPs per matrix parameter, head included, embedding lookup not, plus 12*L*H*Dh*T
// for attention with no allowance for the causal mask. Recomputed FLOPs do not count.
double train_flops_per_token(const ModelSpec& spec, int64_t sequence_length);

}  // namespace stoker
