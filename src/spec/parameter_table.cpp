#include "spec/parameter_table.h"

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"

namespace stoker {
namespace {

class TableBuilder {
 public:
  explicit TableBuilder(const ModelSpec& spec) : s_(spec) {}

  std::vector<ParameterRow> build() {
    if (s_.family == Family::kGpt2) gpt2();
    else llama();
    return std::move(rows_);
  }

 private:
  ParameterRow& add(std::string name, std::vector<int64_t> shape, ParameterRole role) {
    ParameterRow row;
    row.name = std::move(name);
    row.shape = std::move(shape);
    row.role = role;
    row.layer = layer_;
    return rows_.emplace_back(std::move(row));
  }

  void conv1d(const std::string& name, int64_t out, int64_t in, bool residual = false) {
    ParameterRow& w = add(name + ".weight", {out, in}, ParameterRole::kMatrix);
    w.stored_transposed = true;
    w.residual_output = residual;
    add(name + ".bias", {out}, ParameterRole::kBias);
  }
  void layer_norm(const std::string& name) {
    add(name + ".weight", {s_.hidden}, ParameterRole::kNormGain);
    add(name + ".bias", {s_.hidden}, ParameterRole::kBias);
  }

  void gpt2() {
    add("transformer.wte.weight", {s_.vocab, s_.hidden}, ParameterRole::kEmbedding);
    add("transformer.wpe.weight", {s_.max_positions, s_.hidden}, ParameterRole::kPosition);
    const int64_t q = s_.heads * s_.head_dim, kv = s_.kv_heads * s_.head_dim;
    for (layer_ = 0; layer_ < s_.layers; ++layer_) {
      const std::string p = fmt::format("transformer.h.{}.", layer_);
      layer_norm(p + "ln_1");
      conv1d(p + "attn.c_attn", q + 2 * kv, s_.hidden);
      conv1d(p + "attn.c_proj", s_.hidden, q, true);
      layer_norm(p + "ln_2");
      conv1d(p + "mlp.c_fc", s_.ffn, s_.hidden);
      conv1d(p + "mlp.c_proj", s_.hidden, s_.ffn, true);
    }
    layer_ = -1;
    layer_norm("transformer.ln_f");
    if (!s_.tied_embeddings) add("lm_head.weight", {s_.vocab, s_.hidden}, ParameterRole::kHead);
  }

  void matrix(const std::string& name, int64_t out, int64_t in, bool residual = false) {
    add(name + ".weight", {out, in}, ParameterRole::kMatrix).residual_output = residual;
  }
  void norm(const std::string& name, int64_t width) {
    add(name + ".weight", {width}, ParameterRole::kNormGain);
  }

  void llama() {
    add("model.embed_tokens.weight", {s_.vocab, s_.hidden}, ParameterRole::kEmbedding);
    const int64_t q = s_.heads * s_.head_dim, kv = s_.kv_heads * s_.head_dim;
    for (layer_ = 0; layer_ < s_.layers; ++layer_) {
      const std::string p = fmt::format("model.layers.{}.", layer_);
      norm(p + "input_layernorm", s_.hidden);
      matrix(p + "self_attn.q_proj", q, s_.hidden);
      matrix(p + "self_attn.k_proj", kv, s_.hidden);
      matrix(p + "self_attn.v_proj", kv, s_.hidden);
      if (s_.qkv_bias) {
        add(p + "self_attn.q_proj.bias", {q}, ParameterRole::kBias);
        add(p + "self_attn.k_proj.bias", {kv}, ParameterRole::kBias);
        add(p + "self_attn.v_proj.bias", {kv}, ParameterRole::kBias);
      }
      if (s_.qk_norm) {
        norm(p + "self_attn.q_norm", s_.head_dim);
        norm(p + "self_attn.k_norm", s_.head_dim);
      }
      matrix(p + "self_attn.o_proj", s_.hidden, q, true);
      norm(p + "post_attention_layernorm", s_.hidden);
      matrix(p + "mlp.gate_proj", s_.ffn, s_.hidden);
      matrix(p + "mlp.up_proj", s_.ffn, s_.hidden);
      matrix(p + "mlp.down_proj", s_.hidden, s_.ffn, true);
    }
    layer_ = -1;
    norm("model.norm", s_.hidden);
    if (!s_.tied_embeddings) add("lm_head.weight", {s_.vocab, s_.hidden}, ParameterRole::kHead);
  }

  const ModelSpec& s_;
  std::vector<ParameterRow> rows_;
  int64_t layer_ = -1;
};

int64_t expert_matrices(const ModelSpec& s, int64_t experts) {
  const int64_t mats = s.activation == ActivationKind::kSwiGlu ? 3 : 2;
  return (s.layers - s.dense_layers) * s.hidden *
         (mats * (s.expert_ffn * experts + s.shared_expert_ffn) + s.experts);
}

int64_t dense_count(const ModelSpec& s) {
  int64_t total = 0;
  for (const ParameterRow& row : TableBuilder(s).build())
    total = checked_add(total, row.count(), "parameter count");
  // The table is that of trainable models, whose Llama shapes all have a gate; planned ones may have none.
  if (s.family == Family::kLlama && s.activation != ActivationKind::kSwiGlu)
    total -= s.layers * s.hidden * s.ffn;
  return total;
}

int64_t count_with_experts(const ModelSpec& s, int64_t experts) {
  if (!s.experts) return dense_count(s);
  const int64_t mats = s.activation == ActivationKind::kSwiGlu ? 3 : 2;
  return dense_count(s) - (s.layers - s.dense_layers) * mats * s.hidden * s.ffn + expert_matrices(s, experts);
}

}  // namespace

int64_t ParameterRow::count() const {
  int64_t n = 1;
  for (int64_t d : shape) n = checked_mul(n, d, name);
  return n;
}

std::vector<ParameterRow> parameter_table(const ModelSpec& spec) {
  validate(spec);
  if (spec.experts)
    fail(ErrorKind::kUsage, "model.experts is {}: mixture-of-experts models can be planned but not trained",
         spec.experts);
  return TableBuilder(spec).build();
}

int64_t parameter_count(const ModelSpec& spec) {
  validate(spec);
  return count_with_experts(spec, spec.experts);
}
int64_t active_parameter_count(const ModelSpec& spec) {
  validate(spec);
  return count_with_experts(spec, spec.experts_per_token);
}

}  // namespace stoker
