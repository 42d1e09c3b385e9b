#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace stoker {
namespace {

constexpr int64_t kLogitBytes = 128 << 20;

Dtype compute_dtype(Precision p) { return p == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32; }

nn::BlockShape block_shape(Precision precision, const TransformerOptions& o) {
  return {o.rows, o.length, compute_dtype(precision), o.recompute, o.training};
}

}  // namespace

std::vector<double> rope_frequencies(const ModelSpec& s) {
  std::vector<double> frequency;
  for (int64_t i = 0; i < s.head_dim / 2; ++i) {
    double f = std::pow(s.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(s.head_dim));
    const RopeScaling& r = s.rope_scaling;
    if (r.kind == RopeScalingKind::kLinear) f /= r.factor;
    if (r.kind == RopeScalingKind::kLlama3) {
      const double wavelength = 2 * std::numbers::pi / f,
                   original = static_cast<double>(r.original_max_positions);
      const double low = original / r.low_freq_factor, high = original / r.high_freq_factor;
      if (wavelength > low) f /= r.factor;
      else if (wavelength > high) {
        const double smooth =
            (original / wavelength - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
        f = (1 - smooth) * f / r.factor + smooth * f;
      }
    }
    frequency.push_back(f);
  }
  return frequency;
}

int64_t Transformer::head_rows(const ModelSpec& spec, int64_t tokens) {
  const int64_t fitting = kLogitBytes / 4 / spec.vocab / 128 * 128;
  return std::min(tokens, std::max<int64_t>(128, fitting));
}

Transformer::Memory Transformer::take_memory(Arena& arena, const ModelSpec& spec, Precision precision,
                                             const TransformerOptions& o) {
  const nn::BlockShape shape = block_shape(precision, o);
  const int64_t tokens = o.rows * o.length, chunk = head_rows(spec, tokens);
  Memory m;
  m.saved = nn::take_saved(arena, spec, shape);
  m.scratch = nn::take_scratch(arena, spec, shape);
  m.x_final = arena.take({tokens, spec.hidden}, shape.dtype);
  m.y_final = arena.take({tokens, spec.hidden}, shape.dtype);
  m.rstd = arena.take({tokens}, Dtype::kF32);
  if (spec.norm == NormKind::kLayerNorm) m.mean = arena.take({tokens}, Dtype::kF32);
  m.logits = arena.take({chunk, spec.vocab}, Dtype::kF32);
  m.losses = arena.take({tokens}, Dtype::kF32);
  if (!o.training) return m;
  m.g = arena.take({tokens, spec.hidden}, shape.dtype);
  m.dlogits = shape.dtype == Dtype::kF32 ? m.logits : arena.take({chunk, spec.vocab}, shape.dtype);
  return m;
}

size_t Transformer::memory_bytes(const ModelSpec& spec, Precision precision,
                                 const TransformerOptions& options) {
  Arena arena;
  take_memory(arena, spec, precision, options);
  const size_t rope =
      spec.position == PositionKind::kRope ? static_cast<size_t>(options.length * spec.head_dim) * 4 : 0;
  return arena.bytes() + rope;
}

Transformer::Transformer(nn::ParameterStore& store, TransformerOptions options, ops::Context& context)
    : store_(store), spec_(store.spec()), options_(options), context_(context) {
  if (options.length > spec_.max_positions)
    fail(ErrorKind::kUsage,
         "data.sequence_length is {}, above model.max_positions ({}): shorten it, or raise max_positions",
         options.length, spec_.max_positions);
  take_memory(arena_, spec_, store.precision(), options);
  arena_.commit();
  m_ = take_memory(arena_, spec_, store.precision(), options);
  for (int64_t l = 0; l < spec_.layers; ++l)
    blocks_.emplace_back(spec_, nn::block_weights(store, l), block_shape(store.precision(), options));
  const bool gpt2 = spec_.family == Family::kGpt2;
  embedding_ = store.find(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight");
  position_ = store.find("transformer.wpe.weight");
  norm_ = store.find(gpt2 ? "transformer.ln_f.weight" : "model.norm.weight");
  norm_bias_ = store.find("transformer.ln_f.bias");
  head_ = spec_.tied_embeddings ? embedding_ : store.find("lm_head.weight");
  if (spec_.position == PositionKind::kRope) {
    rope_memory_ = Buffer(static_cast<size_t>(options.length * spec_.head_dim) * 4);
    rope_table_ = view_of(static_cast<float*>(rope_memory_.data()), {options.length, spec_.head_dim});
    ops::fill_rope_table(rope_frequencies(spec_), rope_table_);
  }
}

nn::BlockPlace Transformer::place(const MicroBatch& b) const {
  const int64_t n = options_.rows * options_.length;
  STOKER_CHECK(b.rows == options_.rows && b.length == options_.length, "batch {}x{}", b.rows, b.length);
  STOKER_CHECK(static_cast<int64_t>(b.tokens.size()) == n && static_cast<int64_t>(b.positions.size()) == n);
  nn::BlockPlace place;
  place.positions = view_of(b.positions.data() ? const_cast<int32_t*>(b.positions.data()) : nullptr, {n});
  if (!b.document_start.empty())
    place.document_start = view_of(const_cast<int32_t*>(b.document_start.data()), {b.rows, b.length});
  place.rope_table = rope_table_;
  return place;
}

void Transformer::embed(const MicroBatch& b) {
  const int64_t n = options_.rows * options_.length;
  ops::EmbeddingForward a{
      view_of(const_cast<int32_t*>(b.tokens.data()), {n}), embedding_.compute, m_.saved[0].x1, {}, {}};
  if (position_)
    a.positions = view_of(const_cast<int32_t*>(b.positions.data()), {n}),
    a.position_table = position_.compute;
  ops::embedding_forward(context_, a);
}

void Transformer::run_blocks(const nn::BlockPlace& place) {
  for (size_t l = 0; l < blocks_.size(); ++l)
    blocks_[l].forward(context_, l ? m_.saved[l - 1].x2 : m_.saved[0].x1, l ? m_.scratch.delta : TensorView{},
                       place, m_.saved[l], m_.scratch);
}

void Transformer::final_norm() {
  ops::NormForward a;
  a.form = spec_.norm == NormKind::kLayerNorm ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = m_.saved.back().x2, a.delta = m_.scratch.delta, a.x_out = m_.x_final;
  a.gain = norm_.value, a.bias = norm_bias_.value, a.y = m_.y_final, a.rstd = m_.rstd, a.mean = m_.mean;
  a.eps = static_cast<float>(spec_.norm_eps);
  ops::norm_forward(context_, a);
}

double Transformer::head(const MicroBatch& b, bool gradients, float grad_scale) {
  const int64_t tokens = options_.rows * options_.length, chunk = m_.logits.shape[0];
  STOKER_CHECK(static_cast<int64_t>(b.targets.size()) == tokens);
  const TensorView targets = view_of(const_cast<int32_t*>(b.targets.data()), {tokens});
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t end = std::min(tokens, begin + chunk);
    const TensorView y = m_.y_final.slice_rows(begin, end), logits = m_.logits.slice_rows(0, end - begin);
    ops::linear_forward(context_, {y, head_.compute, {}, logits});
    ops::CrossEntropy loss{
        logits, targets.slice_rows(begin, end), m_.losses.slice_rows(begin, end), {}, grad_scale};
    if (gradients) loss.dlogits = m_.dlogits.slice_rows(0, end - begin);
    ops::cross_entropy(context_, loss);
    if (!gradients) continue;
    ops::linear_backward_weight(context_, {loss.dlogits, y, head_.grad, {}});
    ops::linear_backward_input(context_, {loss.dlogits, head_.compute, m_.scratch.dy.slice_rows(begin, end)});
  }
  double sum = 0;
  for (int64_t i = 0; i < tokens; ++i) sum += static_cast<double>(m_.losses.as<float>()[i]);
  return sum;
}

double Transformer::loss(const MicroBatch& b) {
  const nn::BlockPlace where = place(b);
  embed(b);
  run_blocks(where);
  final_norm();
  return head(b, false, 0);
}

void Transformer::logits(const MicroBatch& b, TensorView out) {
  const nn::BlockPlace where = place(b);
  embed(b);
  run_blocks(where);
  final_norm();
  ops::linear_forward(context_, {m_.y_final, head_.compute, {}, out});
}

double Transformer::forward_backward(const MicroBatch& b, float grad_scale) {
  STOKER_CHECK(options_.training && store_.grads());
  const nn::BlockPlace where = place(b);
  embed(b);
  run_blocks(where);
  final_norm();
  const double sum = head(b, true, grad_scale);

  ops::NormBackward a;
  a.form = spec_.norm == NormKind::kLayerNorm ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = m_.x_final, a.gain = norm_.value, a.rstd = m_.rstd, a.mean = m_.mean, a.dy = m_.scratch.dy,
  a.dx = m_.g;
  a.dgain = norm_.grad, a.dbias = norm_bias_.grad;
  ops::norm_backward(context_, a);
  for (size_t l = blocks_.size(); l-- > 0;)
    blocks_[l].backward(context_, m_.g, where, m_.saved[l], m_.scratch);

  const int64_t n = options_.rows * options_.length;
  ops::EmbeddingBackward e{
      view_of(const_cast<int32_t*>(b.tokens.data()), {n}), m_.g, embedding_.grad, {}, {}};
  if (position_) e.positions = where.positions, e.dposition_table = position_.grad;
  ops::embedding_backward(context_, e);
  return sum;
}

}  // namespace stoker
