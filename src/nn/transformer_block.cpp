#include "nn/transformer_block.h"

#include <cmath>
#include <cstring>

#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace stoker::nn {

BlockWeights block_weights(const ParameterStore& store, int64_t layer) {
  BlockWeights w;
  auto at = [&](const std::string& prefix) {
    return [&store, prefix](const char* name) { return store.find(prefix + name); };
  };
  if (store.spec().family == Family::kGpt2) {
    const auto get = at(fmt::format("transformer.h.{}.", layer));
    w.norm1 = get("ln_1.weight"), w.norm1_bias = get("ln_1.bias");
    w.qkv = get("attn.c_attn.weight"), w.qkv_bias = get("attn.c_attn.bias");
    w.out = get("attn.c_proj.weight"), w.out_bias = get("attn.c_proj.bias");
    w.norm2 = get("ln_2.weight"), w.norm2_bias = get("ln_2.bias");
    w.up = get("mlp.c_fc.weight"), w.up_bias = get("mlp.c_fc.bias");
    w.down = get("mlp.c_proj.weight"), w.down_bias = get("mlp.c_proj.bias");
    return w;
  }
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const auto get = at(prefix);
  w.norm1 = get("input_layernorm.weight");
  w.qkv = store.fused(prefix + "self_attn.q_proj.weight", prefix + "self_attn.v_proj.weight");
  w.qkv_bias = store.fused(prefix + "self_attn.q_proj.bias", prefix + "self_attn.v_proj.bias");
  w.q_gain = get("self_attn.q_norm.weight"), w.k_gain = get("self_attn.k_norm.weight");
  w.out = get("self_attn.o_proj.weight");
  w.norm2 = get("post_attention_layernorm.weight");
  w.up = store.fused(prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight");
  w.down = get("mlp.down_proj.weight");
  return w;
}

namespace {

struct Sizes {
  int64_t tokens, hidden, q, qkv, up, ffn;
  Sizes(const ModelSpec& s, const BlockShape& b)
      : tokens(b.rows * b.length),
        hidden(s.hidden),
        q(s.heads * s.head_dim),
        qkv((s.heads + 2 * s.kv_heads) * s.head_dim),
        up(s.ffn * (s.activation == ActivationKind::kSwiGlu ? 2 : 1)),
        ffn(s.ffn) {}
};

bool layer_norm(const ModelSpec& s) { return s.norm == NormKind::kLayerNorm; }

}  // namespace

std::vector<std::vector<BlockSaved>> take_saved(Arena& arena, const ModelSpec& s, const BlockShape& b,
                                                int64_t layers, int slots) {
  const Sizes n(s, b);
  const auto matrix = [&](int64_t width) { return arena.take({n.tokens, width}, b.dtype); };
  const auto column = [&](int64_t width) { return arena.take({n.tokens * width}, Dtype::kF32); };
  // kNone keeps everything per layer; the other modes keep less per layer and share one copy of the rest.
  // Without training nothing is kept: one layer's memory serves all.
  const bool full = b.recompute == Recompute::kFull || !b.training,
             selective = b.recompute == Recompute::kSelective && !full;
  BlockSaved shared;
  const auto take_cheap = [&](BlockSaved& v) {
    v.y1 = matrix(n.hidden), v.y2 = matrix(n.hidden), v.active = matrix(n.ffn);
  };
  const auto take_rest = [&](BlockSaved& v) {
    v.rstd1 = column(1), v.rstd2 = column(1);
    if (layer_norm(s)) v.mean1 = column(1), v.mean2 = column(1);
    if (s.qk_norm)
      v.raw = arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype),
      v.qk_rstd = column(s.heads + s.kv_heads);
    v.qkv = arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype);
    v.attended = arena.take({b.rows, b.length, s.heads, s.head_dim}, b.dtype);
    v.lse = arena.take({b.rows, s.heads, b.length}, Dtype::kF32);
    v.x2 = matrix(n.hidden), v.up = matrix(n.up);
  };
  if (full || selective) take_cheap(shared);
  if (full) take_rest(shared);
  if (!b.training) shared.x1 = matrix(n.hidden);
  std::vector<std::vector<BlockSaved>> saved(static_cast<size_t>(slots));
  for (auto& slot : saved)
    for (int64_t l = 0; l < layers; ++l) {
      BlockSaved v = shared;
      if (b.training) v.x1 = matrix(n.hidden);
      if (!full && !selective) take_cheap(v);
      if (!full) take_rest(v);
      slot.push_back(v);
    }
  return saved;
}

BlockStash take_stash(Arena& arena, const ModelSpec& s, const BlockShape& b) {
  const Sizes n(s, b);
  return {arena.take({n.tokens, n.hidden}, b.dtype), arena.take({n.tokens, n.hidden}, b.dtype),
          arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype)};
}

BlockScratch take_scratch(Arena& arena, const ModelSpec& s, const BlockShape& b) {
  const Sizes n(s, b);
  BlockScratch v;
  v.delta = arena.take({n.tokens, n.hidden}, b.dtype);
  if (!b.training) return v;
  v.dy = arena.take({n.tokens, n.hidden}, b.dtype);
  v.dattended = arena.take({b.rows, b.length, s.heads, s.head_dim}, b.dtype);
  v.dqkv = arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype);
  v.dactive = arena.take({n.tokens, n.ffn}, b.dtype);
  return v;
}

void linear(ops::Context& context, const Weight& weight, const Weight& bias, TensorView x, TensorView y) {
  const int64_t rows = y.count() / weight.value.shape[0];
  ops::linear_forward(context, {x.reshaped({rows, weight.value.shape[1]}), weight.compute, bias.value,
                                y.reshaped({rows, weight.value.shape[0]})});
}

void linear_backward_input(ops::Context& context, const Weight& weight, TensorView dy, TensorView dx) {
  const int64_t rows = dy.count() / weight.value.shape[0];
  ops::linear_backward_input(context, {dy.reshaped({rows, weight.value.shape[0]}), weight.compute,
                                       dx.reshaped({rows, weight.value.shape[1]})});
}

void linear_backward_weight(ops::Context& context, const Weight& weight, const Weight& bias, TensorView x,
                            TensorView dy) {
  const int64_t rows = dy.count() / weight.value.shape[0];
  ops::linear_backward_weight(context, {dy.reshaped({rows, weight.value.shape[0]}),
                                        x.reshaped({rows, weight.value.shape[1]}), weight.grad, bias.grad});
}

void TransformerBlock::norm(ops::Context& context, const Weight& gain, const Weight& bias, TensorView x,
                            TensorView delta, TensorView x_out, TensorView y, TensorView rstd,
                            TensorView mean) const {
  ops::NormForward a;
  a.form = layer_norm(spec_) ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = x, a.delta = delta, a.x_out = delta ? x_out : TensorView{};
  a.gain = gain.value, a.bias = bias.value, a.y = y, a.rstd = rstd, a.mean = mean;
  a.eps = static_cast<float>(spec_.norm_eps);
  ops::norm_forward(context, a);
}

void TransformerBlock::norm_backward(ops::Context& context, const Weight& gain, const Weight& bias,
                                     TensorView x, TensorView rstd, TensorView mean, TensorView dy,
                                     TensorView g) const {
  ops::NormBackward a;
  a.form = layer_norm(spec_) ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = x, a.gain = gain.value, a.rstd = rstd, a.mean = mean, a.dy = dy, a.dx = g;
  a.dgain = gain.grad, a.dbias = bias.grad;
  a.dx_accumulate = ops::Accumulate::kAdd;
  ops::norm_backward(context, a);
}

void TransformerBlock::activate(ops::Context& context, const BlockSaved& v) const {
  const auto form =
      spec_.activation == ActivationKind::kSwiGlu ? ops::ActivationForm::kSwiGlu : ops::ActivationForm::kGelu;
  ops::activation_forward(context, {form, v.up, v.active});
}

void TransformerBlock::attention_part(ops::Context& context, const BlockPlace& place,
                                      const BlockSaved& v) const {
  linear(context, w_.qkv, w_.qkv_bias, v.y1, v.qkv);
  if (place.rope_table) {
    ops::RopeForward rope{v.qkv,           place.positions, place.rope_table,
                          spec_.heads,     spec_.kv_heads,  w_.q_gain.value,
                          w_.k_gain.value, v.raw,           v.qk_rstd};
    rope.eps = static_cast<float>(spec_.norm_eps);
    ops::rope_forward(context, rope);
  }
  const float scale = 1 / std::sqrt(static_cast<float>(spec_.head_dim));
  ops::attention_forward(context, {v.qkv, place.document_start, v.attended, v.lse, spec_.heads,
                                   spec_.kv_heads, spec_.sliding_window, scale});
}

void TransformerBlock::forward(ops::Context& context, TensorView x, TensorView delta, const BlockPlace& place,
                               const BlockSaved& v, const BlockScratch& scratch) const {
  STOKER_CHECK(delta || x.data == v.x1.data, "the first layer's input is its x1");
  norm(context, w_.norm1, w_.norm1_bias, x, delta, v.x1, v.y1, v.rstd1, v.mean1);
  attention_part(context, place, v);
  linear(context, w_.out, w_.out_bias, v.attended, scratch.delta);
  norm(context, w_.norm2, w_.norm2_bias, v.x1, scratch.delta, v.x2, v.y2, v.rstd2, v.mean2);
  linear(context, w_.up, w_.up_bias, v.y2, v.up);
  activate(context, v);
  linear(context, w_.down, w_.down_bias, v.active, scratch.delta);
}

void TransformerBlock::backward(ops::Context& context, TensorView g, const BlockPlace& place,
                                const BlockSaved& v, const BlockScratch& s, const BlockStash& stash) const {
  STOKER_CHECK(!stash || shape_.recompute == Recompute::kNone, "recomputed tensors do not outlive backward");
  if (shape_.recompute == Recompute::kFull) {
    forward(context, v.x1, {}, place, v, s);
  } else if (shape_.recompute == Recompute::kSelective) {
    norm(context, w_.norm2, w_.norm2_bias, v.x2, {}, {}, v.y2, v.rstd2, v.mean2);
    activate(context, v);
  }
  const auto weights = [&](const Weight& weight, const Weight& bias, TensorView x, TensorView dy,
                           TensorView keep) {
    if (!stash) linear_backward_weight(context, weight, bias, x, dy);
    else if (keep) std::memcpy(keep.data, dy.data, dy.bytes());
  };
  const auto form =
      spec_.activation == ActivationKind::kSwiGlu ? ops::ActivationForm::kSwiGlu : ops::ActivationForm::kGelu;
  linear_backward_input(context, w_.down, g, s.dactive);
  weights(w_.down, w_.down_bias, v.active, g, stash.g_down);
  ops::activation_backward(context, {form, v.up, s.dactive, v.up});
  linear_backward_input(context, w_.up, v.up, s.dy);
  weights(w_.up, w_.up_bias, v.y2, v.up, {});  // v.up stays
  norm_backward(context, w_.norm2, w_.norm2_bias, v.x2, v.rstd2, v.mean2, s.dy, g);

  linear_backward_input(context, w_.out, g, s.dattended);
  weights(w_.out, w_.out_bias, v.attended, g, stash.g_out);
  const TensorView dqkv = stash ? stash.dqkv : s.dqkv;
  const float scale = 1 / std::sqrt(static_cast<float>(spec_.head_dim));
  ops::attention_backward(context, {v.qkv, place.document_start, v.attended, v.lse, s.dattended, dqkv,
                                    spec_.heads, spec_.kv_heads, spec_.sliding_window, scale});
  if (place.rope_table)
    ops::rope_backward(context,
                       {dqkv, place.positions, place.rope_table, spec_.heads, spec_.kv_heads, w_.q_gain.value,
                        w_.k_gain.value, v.raw, v.qk_rstd, w_.q_gain.grad, w_.k_gain.grad});
  if (shape_.recompute == Recompute::kSelective)
    norm(context, w_.norm1, w_.norm1_bias, v.x1, {}, {}, v.y1, v.rstd1, v.mean1);
  linear_backward_input(context, w_.qkv, dqkv, s.dy);
  weights(w_.qkv, w_.qkv_bias, v.y1, dqkv, {});  // already in the stash
  norm_backward(context, w_.norm1, w_.norm1_bias, v.x1, v.rstd1, v.mean1, s.dy, g);
}

void TransformerBlock::backward_weights(ops::Context& context, const BlockSaved& v,
                                        const BlockStash& stash) const {
  linear_backward_weight(context, w_.down, w_.down_bias, v.active, stash.g_down);
  linear_backward_weight(context, w_.up, w_.up_bias, v.y2, v.up);
  linear_backward_weight(context, w_.out, w_.out_bias, v.attended, stash.g_out);
  linear_backward_weight(context, w_.qkv, w_.qkv_bias, v.y1, stash.dqkv);
}

}  // namespace stoker::nn
