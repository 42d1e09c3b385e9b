#include "nn/transformer_block.h"

#include <algorithm>
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
  int64_t tokens, residual, hidden, q, qkv, up, ffn;
  Sizes(const ModelSpec& s, const BlockShape& b)
      : tokens(b.tokens()),
        residual(b.residual_tokens()),
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
  const auto stream = [&] { return arena.take({n.residual, n.hidden}, b.dtype); };
  const auto column = [&] { return arena.take({n.residual}, Dtype::kF32); };
  // kNone keeps everything per layer; the other modes keep less per layer and share one copy of the rest.
  // Without training nothing is kept: one layer's memory serves all.
  const bool full = b.recompute == Recompute::kFull || !b.training,
             selective = b.recompute == Recompute::kSelective && !full;
  BlockSaved shared;
  const auto take_cheap = [&](BlockSaved& v) { v.y1 = stream(), v.y2 = stream(), v.active = matrix(n.ffn); };
  const auto take_rest = [&](BlockSaved& v) {
    v.rstd1 = column(), v.rstd2 = column();
    if (layer_norm(s)) v.mean1 = column(), v.mean2 = column();
    if (s.qk_norm)
      v.raw = arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype),
      v.qk_rstd = arena.take({n.tokens * (s.heads + s.kv_heads)}, Dtype::kF32);
    v.qkv = arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype);
    v.attended = arena.take({b.rows, b.length, s.heads, s.head_dim}, b.dtype);
    v.lse = arena.take({b.rows, s.heads, b.length}, Dtype::kF32);
    v.x2 = stream(), v.up = matrix(n.up);
  };
  if (full || selective) take_cheap(shared);
  if (full) take_rest(shared);
  if (!b.training) shared.x1 = stream();
  std::vector<std::vector<BlockSaved>> saved(static_cast<size_t>(slots));
  for (auto& slot : saved)
    for (int64_t l = 0; l < layers; ++l) {
      BlockSaved v = shared;
      if (b.training) v.x1 = stream();
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
  v.delta = arena.take({n.residual, n.hidden}, b.dtype);
  if (b.tensor > 1) v.partial = arena.take({n.tokens, n.hidden}, Dtype::kF32);
  if (b.split_rows) v.whole = arena.take({n.tokens, n.hidden}, b.dtype);
  if (!b.training) return v;
  if (b.split_rows) v.whole_y = arena.take({n.tokens, n.hidden}, b.dtype);
  v.dy = arena.take({n.residual, n.hidden}, b.dtype);
  v.dattended = arena.take({b.rows, b.length, s.heads, s.head_dim}, b.dtype);
  v.dqkv = arena.take({b.rows, b.length, s.heads + 2 * s.kv_heads, s.head_dim}, b.dtype);
  v.dactive = arena.take({n.tokens, n.ffn}, b.dtype);
  return v;
}

size_t product_scratch_bytes(const ModelSpec& s, const BlockShape& b) {
  const Sizes n(s, b);
  const auto takes = [&](int64_t out, int64_t in) {
    return ops::linear_scratch_bytes(n.tokens, out, in, b.dtype);
  };
  return std::max(
      {takes(n.qkv, n.hidden), takes(n.hidden, n.q), takes(n.up, n.hidden), takes(n.hidden, n.ffn)});
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

bool partial_gradient(const ParameterRow& row, bool split_rows) {
  if (row.name.ends_with(".q_norm.weight") || row.name.ends_with(".k_norm.weight"))
    return true;  // over the heads that a worker has
  return split_rows && (row.role == ParameterRole::kNormGain ||
                        (row.role == ParameterRole::kBias && row.name.find(".ln_") != std::string::npos));
}

namespace {

TensorView flat(TensorView v, int64_t width) { return v.reshaped({v.count() / width, width}); }

}  // namespace

void TransformerBlock::project(ops::Context& context, const Weight& weight, const Weight& bias, TensorView x,
                               TensorView y, const BlockScratch& s) const {
  if (!shape_.split_rows) return linear(context, weight, bias, x, y);
  const TensorView out = flat(y, weight.value.shape[0]);
  peers_.tensor->gather_rows(x, s.whole, [&](int64_t begin, int64_t end) {
    linear(context, weight, bias, s.whole.slice_rows(begin, end), out.slice_rows(begin, end));
  });
}

// From the heads or hidden units that this worker has.
void TransformerBlock::project_back(ops::Context& context, const Weight& weight, const Weight& bias,
                                    TensorView x, const BlockScratch& s) const {
  if (!peers_.tensor) return linear(context, weight, bias, x, s.delta);
  const TensorView in = flat(x, weight.value.shape[1]);
  const auto make = [&](int64_t begin, int64_t end) {
    linear(context, weight, {}, in.slice_rows(begin, end), s.partial.slice_rows(begin, end));
  };
  peers_.tensor->sum(s.partial, make, {}, bias.value, s.delta);
}

// Of a norm's output, which every worker's heads or hidden units have read.
void TransformerBlock::project_gradient(ops::Context& context, const Weight& weight, TensorView dy,
                                        const BlockScratch& s, const TensorPeers::Work& beside) const {
  if (!peers_.tensor) {
    linear_backward_input(context, weight, dy, s.dy);
    return beside();
  }
  const TensorView in = flat(dy, weight.value.shape[0]);
  const auto make = [&](int64_t begin, int64_t end) {
    linear_backward_input(context, weight, in.slice_rows(begin, end), s.partial.slice_rows(begin, end));
  };
  peers_.tensor->sum(s.partial, make, beside, {}, s.dy);
}

// Returns all rows of dy.
TensorView TransformerBlock::project_back_gradient(ops::Context& context, const Weight& weight, TensorView dy,
                                                   TensorView dx, const BlockScratch& s) const {
  if (!shape_.split_rows) {
    linear_backward_input(context, weight, dy, dx);
    return dy;
  }
  const TensorView out = flat(dx, weight.value.shape[1]);
  peers_.tensor->gather_rows(dy, s.whole, [&](int64_t begin, int64_t end) {
    linear_backward_input(context, weight, s.whole.slice_rows(begin, end), out.slice_rows(begin, end));
  });
  return s.whole;
}

// All rows of a matrix of which this worker has some, in two halves.
void TransformerBlock::send_rows(TensorView rows, const BlockScratch& s) const {
  if (shape_.split_rows) peers_.tensor->send_rows(rows, s.whole_y);
}
TensorView TransformerBlock::await_rows(TensorView rows, const BlockScratch& s) const {
  if (!shape_.split_rows) return rows;
  peers_.tensor->await_rows();
  return s.whole_y;
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

void TransformerBlock::attention_part(ops::Context& context, const BlockPlace& place, const BlockSaved& v,
                                      const BlockScratch& s) const {
  project(context, w_.qkv, w_.qkv_bias, v.y1, v.qkv, s);
  if (place.rope_table) {
    ops::RopeForward rope{v.qkv,           place.positions, place.rope_table,
                          spec_.heads,     spec_.kv_heads,  w_.q_gain.value,
                          w_.k_gain.value, v.raw,           v.qk_rstd};
    rope.eps = static_cast<float>(spec_.norm_eps);
    ops::rope_forward(context, rope);
  }
  const float scale = 1 / std::sqrt(static_cast<float>(spec_.head_dim));
  const ops::AttentionForward attention{v.qkv,       place.document_start, v.attended,           v.lse,
                                        spec_.heads, spec_.kv_heads,       spec_.sliding_window, scale};
  if (peers_.sequence) peers_.sequence->attention_forward(context, attention);
  else ops::attention_forward(context, attention);
}

void TransformerBlock::forward(ops::Context& context, TensorView x, TensorView delta, const BlockPlace& place,
                               const BlockSaved& v, const BlockScratch& scratch) const {
  STOKER_CHECK(delta || x.data == v.x1.data, "the first layer's input is its x1");
  norm(context, w_.norm1, w_.norm1_bias, x, delta, v.x1, v.y1, v.rstd1, v.mean1);
  attention_part(context, place, v, scratch);
  project_back(context, w_.out, w_.out_bias, v.attended, scratch);
  norm(context, w_.norm2, w_.norm2_bias, v.x1, scratch.delta, v.x2, v.y2, v.rstd2, v.mean2);
  project(context, w_.up, w_.up_bias, v.y2, v.up, scratch);
  activate(context, v);
  project_back(context, w_.down, w_.down_bias, v.active, scratch);
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
  // Of the matrices that lead back into the stream and those that lead out of it. All are made while others' gradients are on their way.
  const auto back_weights = [&](const Weight& weight, const Weight& bias, TensorView x, TensorView dy,
                                TensorView keep) {
    if (!stash) linear_backward_weight(context, weight, bias, x, dy);
    else std::memcpy(keep.data, dy.data, dy.bytes());
  };
  const auto out_weights = [&](const Weight& weight, const Weight& bias, TensorView x, TensorView dy) {
    if (!stash) linear_backward_weight(context, weight, bias, await_rows(x, s), dy);  // else dy stays
  };
  const auto form =
      spec_.activation == ActivationKind::kSwiGlu ? ops::ActivationForm::kSwiGlu : ops::ActivationForm::kGelu;
  TensorView all = project_back_gradient(context, w_.down, g, s.dactive, s);
  if (!stash) send_rows(v.y2, s);
  ops::activation_backward(context, {form, v.up, s.dactive, v.up});
  project_gradient(context, w_.up, v.up, s, [&] {
    back_weights(w_.down, w_.down_bias, v.active, all, stash.g_down);
    out_weights(w_.up, w_.up_bias, v.y2, v.up);
  });
  norm_backward(context, w_.norm2, w_.norm2_bias, v.x2, v.rstd2, v.mean2, s.dy, g);

  all = project_back_gradient(context, w_.out, g, s.dattended, s);
  const TensorView dqkv = stash ? stash.dqkv : s.dqkv;
  const float scale = 1 / std::sqrt(static_cast<float>(spec_.head_dim));
  const ops::AttentionBackward attention{
      v.qkv,       place.document_start, v.attended,           v.lse, s.dattended, dqkv,
      spec_.heads, spec_.kv_heads,       spec_.sliding_window, scale};
  if (peers_.sequence) peers_.sequence->attention_backward(context, attention);
  else ops::attention_backward(context, attention);
  if (place.rope_table)
    ops::rope_backward(context,
                       {dqkv, place.positions, place.rope_table, spec_.heads, spec_.kv_heads, w_.q_gain.value,
                        w_.k_gain.value, v.raw, v.qk_rstd, w_.q_gain.grad, w_.k_gain.grad});
  if (shape_.recompute == Recompute::kSelective)
    norm(context, w_.norm1, w_.norm1_bias, v.x1, {}, {}, v.y1, v.rstd1, v.mean1);
  if (!stash) send_rows(v.y1, s);
  project_gradient(context, w_.qkv, dqkv, s, [&] {
    back_weights(w_.out, w_.out_bias, v.attended, all, stash.g_out);
    out_weights(w_.qkv, w_.qkv_bias, v.y1, dqkv);
  });
  norm_backward(context, w_.norm1, w_.norm1_bias, v.x1, v.rstd1, v.mean1, s.dy, g);
}

void TransformerBlock::backward_weights(ops::Context& context, const BlockSaved& v, const BlockScratch& s,
                                        const BlockStash& stash) const {
  send_rows(v.y2, s);
  linear_backward_weight(context, w_.down, w_.down_bias, v.active, stash.g_down);
  linear_backward_weight(context, w_.up, w_.up_bias, await_rows(v.y2, s), v.up);
  send_rows(v.y1, s);
  linear_backward_weight(context, w_.out, w_.out_bias, v.attended, stash.g_out);
  linear_backward_weight(context, w_.qkv, w_.qkv_bias, await_rows(v.y1, s), stash.dqkv);
}

}  // namespace stoker::nn
