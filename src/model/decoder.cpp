#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "model/transformer.h"
#include "ops/activation.h"
#include "ops/element.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace stoker {
namespace {

// One query head over the cached keys [first, last].
template <typename T>
void attend(const T* q, const T* keys, const T* values, int64_t stride, int64_t first, int64_t last,
            int64_t dh, float scale, T* out) {
  std::vector<float> score(static_cast<size_t>(last - first + 1)), sum(static_cast<size_t>(dh), 0.0f);
  float top = -INFINITY, total = 0;
  for (int64_t s = first; s <= last; ++s) {
    float dot = 0;
    for (int64_t d = 0; d < dh; ++d) dot += to_float(q[d]) * to_float(keys[s * stride + d]);
    top = std::max(top, score[static_cast<size_t>(s - first)] = dot * scale);
  }
  for (int64_t s = first; s <= last; ++s) {
    const float p = std::exp(score[static_cast<size_t>(s - first)] - top);
    total += p;
    for (int64_t d = 0; d < dh; ++d) sum[static_cast<size_t>(d)] += p * to_float(values[s * stride + d]);
  }
  for (int64_t d = 0; d < dh; ++d) out[d] = from_float<T>(sum[static_cast<size_t>(d)] / total);
}

}  // namespace

Decoder::Decoder(nn::ParameterStore& store, int64_t capacity, ops::Context& context)
    : store_(store),
      spec_(store.spec()),
      capacity_(std::min(capacity, store.spec().max_positions)),
      context_(context),
      dtype_(store.precision() == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32) {
  const int64_t q = spec_.heads * spec_.head_dim, all = q + 2 * spec_.kv_heads * spec_.head_dim;
  const bool gated = spec_.activation == ActivationKind::kSwiGlu;
  const auto walk = [&] {
    layers_.clear();
    for (int64_t l = 0; l < spec_.layers; ++l)
      layers_.push_back({nn::block_weights(store, l),
                         arena_.take({capacity_, spec_.kv_heads, spec_.head_dim}, dtype_),
                         arena_.take({capacity_, spec_.kv_heads, spec_.head_dim}, dtype_)});
    x_ = take(spec_.hidden, dtype_), y_ = take(spec_.hidden, dtype_), delta_ = take(spec_.hidden, dtype_);
    qkv_ = take(all, dtype_).reshaped({1, spec_.heads + 2 * spec_.kv_heads, spec_.head_dim});
    if (spec_.qk_norm)
      raw_ = take(all, dtype_).reshaped(qkv_.shape),
      qk_rstd_ = arena_.take({spec_.heads + spec_.kv_heads}, Dtype::kF32);
    attended_ = take(q, dtype_), up_ = take(spec_.ffn * (gated ? 2 : 1), dtype_),
    active_ = take(spec_.ffn, dtype_);
    rstd_ = arena_.take({1}, Dtype::kF32), mean_ = arena_.take({1}, Dtype::kF32);
    logits_ = take(spec_.vocab, Dtype::kF32);
    if (spec_.position == PositionKind::kRope)
      rope_table_ = arena_.take({capacity_, spec_.head_dim}, Dtype::kF32);
  };
  walk();
  arena_.commit();
  walk();
  if (rope_table_) ops::fill_rope_table(rope_frequencies(spec_), rope_table_);
}

TensorView Decoder::take(int64_t width, Dtype dtype) { return arena_.take({1, width}, dtype); }

// y = norm(x + delta), x += delta
void Decoder::norm(const nn::Weight& gain, const nn::Weight& bias, TensorView delta) {
  ops::NormForward a;
  a.form = spec_.norm == NormKind::kLayerNorm ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = x_, a.delta = delta, a.x_out = delta ? x_ : TensorView{};
  a.gain = gain.value, a.bias = bias.value, a.y = y_, a.rstd = rstd_;
  if (a.form == ops::NormForm::kLayer) a.mean = mean_;
  a.eps = static_cast<float>(spec_.norm_eps);
  ops::norm_forward(context_, a);
}

void Decoder::layer(const Layer& l) {
  const nn::BlockWeights& w = l.weights;
  nn::linear(context_, w.qkv, w.qkv_bias, y_, qkv_);
  if (rope_table_) {
    int32_t position = static_cast<int32_t>(length_);
    ops::RopeForward rope{qkv_,           view_of(&position, {1}), rope_table_, spec_.heads, spec_.kv_heads,
                          w.q_gain.value, w.k_gain.value,          raw_,        qk_rstd_};
    rope.eps = static_cast<float>(spec_.norm_eps);
    ops::rope_forward(context_, rope);
  }
  const int64_t dh = spec_.head_dim, width = spec_.kv_heads * dh, group = spec_.heads / spec_.kv_heads;
  const size_t bytes = static_cast<size_t>(width) * dtype_size(dtype_);
  const char* qkv =
      static_cast<const char*>(qkv_.data) + static_cast<size_t>(spec_.heads * dh) * dtype_size(dtype_);
  std::memcpy(l.keys.slice_rows(length_, length_ + 1).data, qkv, bytes);
  std::memcpy(l.values.slice_rows(length_, length_ + 1).data, qkv + bytes, bytes);
  const int64_t first = spec_.sliding_window ? std::max<int64_t>(0, length_ - spec_.sliding_window + 1) : 0;
  const float scale = 1 / std::sqrt(static_cast<float>(dh));
  const auto head = [&]<typename T>(T*, int64_t h) {
    const int64_t at = h / group * dh;
    attend(qkv_.as<T>() + h * dh, l.keys.as<T>() + at, l.values.as<T>() + at, width, first, length_, dh,
           scale, attended_.as<T>() + h * dh);
  };
  parallel_for(spec_.heads, [&](int64_t h) {
    dtype_ == Dtype::kBf16 ? head(static_cast<Bf16*>(nullptr), h) : head(static_cast<float*>(nullptr), h);
  });
  nn::linear(context_, w.out, w.out_bias, attended_, delta_);
  norm(w.norm2, w.norm2_bias, delta_);
  nn::linear(context_, w.up, w.up_bias, y_, up_);
  const auto form =
      spec_.activation == ActivationKind::kSwiGlu ? ops::ActivationForm::kSwiGlu : ops::ActivationForm::kGelu;
  ops::activation_forward(context_, {form, up_, active_});
  nn::linear(context_, w.down, w.down_bias, active_, delta_);
}

std::span<const float> Decoder::next(int32_t token) {
  if (length_ >= capacity_)
    fail(ErrorKind::kUsage,
         "the text is longer than {} tokens: the model's max_positions is {}; ask for fewer tokens",
         capacity_, spec_.max_positions);
  const bool gpt2 = spec_.family == Family::kGpt2;
  const nn::Weight embedding = store_.find(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight"),
                   position = store_.find("transformer.wpe.weight");
  int32_t at = static_cast<int32_t>(length_);
  ops::EmbeddingForward e{view_of(&token, {1}), embedding.compute, x_, {}, {}};
  if (position) e.positions = view_of(&at, {1}), e.position_table = position.compute;
  ops::embedding_forward(context_, e);
  for (size_t i = 0; i < layers_.size(); ++i) {
    norm(layers_[i].weights.norm1, layers_[i].weights.norm1_bias, i ? delta_ : TensorView{});
    layer(layers_[i]);
  }
  norm(store_.find(gpt2 ? "transformer.ln_f.weight" : "model.norm.weight"),
       store_.find("transformer.ln_f.bias"), delta_);
  ops::linear_forward(
      context_,
      {y_, (spec_.tied_embeddings ? embedding : store_.find("lm_head.weight")).compute, {}, logits_});
  ++length_;
  return {logits_.as<float>(), static_cast<size_t>(spec_.vocab)};
}

}  // namespace stoker
