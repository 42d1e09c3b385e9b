#include "model/transformer_chunk.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/threads.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"

namespace stoker {
namespace {

constexpr int64_t kLogitBytes = 128 << 20;

Dtype compute_dtype(Precision p) { return p == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32; }

nn::BlockShape block_shape(Precision precision, const ChunkOptions& o) {
  return {o.rows, o.length, compute_dtype(precision), o.recompute, o.training, o.tensor, o.split_rows};
}

int64_t head_rows(const ModelSpec& spec, int64_t tokens) {
  const int64_t fitting = kLogitBytes / 4 / spec.vocab / 128 * 128;
  return std::min(tokens, std::max<int64_t>(128, fitting));
}

int64_t row_length(const ChunkOptions& o) { return o.row_length ? o.row_length : o.length; }

template <typename T, typename Round>
void add(const TensorView& x, const TensorView& delta, const TensorView& out, const Round& round) {
  parallel_ranges(x.count(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      out.as<T>()[i] = round(to_float(x.as<T>()[i]) + to_float(delta.as<T>()[i]));
  });
}

// As ops/norm.h adds and rounds its `delta`.
void add(const TensorView& x, const TensorView& delta, const TensorView& out) {
  if (x.dtype == Dtype::kBf16) add<Bf16>(x, delta, out, [](float v) { return to_bf16(v); });
  else add<float>(x, delta, out, [](float v) { return v; });
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

TransformerChunk::Memory TransformerChunk::take_memory(Arena& arena, const ModelSpec& spec,
                                                       Precision precision, const ChunkSpec& chunk,
                                                       const ChunkOptions& o) {
  const nn::BlockShape shape = block_shape(precision, o);
  const int64_t tokens = o.rows * o.length, layers = chunk.last - chunk.first;
  const int64_t residual_tokens = shape.residual_tokens();
  const auto residual = [&] { return arena.take({residual_tokens, spec.hidden}, shape.dtype); };
  Memory m;
  m.saved = nn::take_saved(arena, spec, shape, layers, o.slots);
  m.stash.resize(static_cast<size_t>(o.slots));
  if (o.split_backward)
    for (auto& slot : m.stash)
      for (int64_t l = 0; l < layers; ++l) slot.push_back(nn::take_stash(arena, spec, shape));
  m.scratch = nn::take_scratch(arena, spec, shape);
  if (o.training) m.g = residual();
  if (!chunk.heads) {
    m.x_between = residual();
    return m;
  }
  for (int s = 0; s < o.slots; ++s) m.x_final.push_back(residual());
  m.y_final = residual();
  m.y_head = o.split_rows ? arena.take({tokens, spec.hidden}, shape.dtype) : m.y_final;
  m.rstd = arena.take({residual_tokens}, Dtype::kF32);
  if (spec.norm == NormKind::kLayerNorm) m.mean = arena.take({residual_tokens}, Dtype::kF32);
  const int64_t rows = head_rows(spec, tokens);
  m.logits = arena.take({rows, spec.vocab}, Dtype::kF32);
  m.losses = arena.take({tokens}, Dtype::kF32);
  if (o.training)
    m.dlogits = shape.dtype == Dtype::kF32 ? m.logits : arena.take({rows, spec.vocab}, shape.dtype);
  return m;
}

size_t TransformerChunk::memory_bytes(const ModelSpec& spec, Precision precision, const ChunkSpec& chunk,
                                      const ChunkOptions& options) {
  Arena arena;
  take_memory(arena, spec, precision, chunk, options);
  const size_t rope =
      spec.position == PositionKind::kRope ? static_cast<size_t>(row_length(options) * spec.head_dim) * 4 : 0;
  const size_t vocabulary =
      chunk.heads && options.tensor > 1
          ? nn::VocabularySlice::memory_bytes(head_rows(spec, options.rows * options.length), options.tensor)
          : 0;
  return arena.bytes() + rope + vocabulary;
}

size_t TransformerChunk::scratch_bytes(const ModelSpec& spec, Precision precision, const ChunkSpec& chunk,
                                       const ChunkOptions& options) {
  const nn::BlockShape shape = block_shape(precision, options);
  const size_t block = chunk.last > chunk.first ? nn::product_scratch_bytes(spec, shape) : 0;
  if (!chunk.heads) return block;
  const int64_t rows = head_rows(spec, shape.tokens());
  return std::max(block, ops::linear_scratch_bytes(rows, spec.vocab, spec.hidden, shape.dtype));
}

TransformerChunk::TransformerChunk(nn::ParameterStore& store, ChunkSpec chunk, ChunkOptions options,
                                   ops::Context& context, PartWatch* watch, nn::BlockPeers peers)
    : store_(store),
      model_(store.spec()),
      chunk_(chunk),
      options_(options),
      context_(context),
      watch_(watch),
      lookups_(collects_lookups() || (model_.tied_embeddings && chunk.heads) ? model_.vocab : 0,
               model_.hidden),
      peers_(peers) {
  STOKER_CHECK(chunk.first >= 0 && chunk.first < chunk.last && chunk.last <= model_.layers, "layers {} to {}",
               chunk.first, chunk.last);
  if (row_length(options) > model_.max_positions)
    fail(ErrorKind::kUsage,
         "data.sequence_length is {}, above model.max_positions ({}): shorten it, or raise max_positions",
         row_length(options), model_.max_positions);
  STOKER_CHECK((peers.tensor ? peers.tensor->place().size : 1) == options.tensor, "{} workers",
               options.tensor);
  if (options.split_rows && options.rows * options.length % options.tensor)
    fail(ErrorKind::kUsage,
         "train.micro_batch x data.sequence_length / layout.context ({}) is not a multiple of layout.tensor "
         "({}): sequence parallelism cuts the tokens of a micro-batch into equal parts",
         options.rows * options.length, options.tensor);
  if (peers.tensor) vocabulary_.emplace(options.vocab, *peers.tensor);
  take_memory(arena_, model_, store.precision(), chunk_, options);
  arena_.commit();
  m_ = take_memory(arena_, model_, store.precision(), chunk_, options);
  for (int64_t l = chunk_.first; l < chunk_.last; ++l)
    blocks_.emplace_back(model_, nn::block_weights(store, l), block_shape(store.precision(), options),
                         peers_);
  const bool gpt2 = model_.family == Family::kGpt2;
  embedding_ = store.find(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight");
  position_ = store.find("transformer.wpe.weight");
  norm_ = store.find(gpt2 ? "transformer.ln_f.weight" : "model.norm.weight");
  norm_bias_ = store.find("transformer.ln_f.bias");
  head_ = model_.tied_embeddings ? embedding_ : store.find("lm_head.weight");
  if (model_.position == PositionKind::kRope) {
    const int64_t positions = row_length(options);
    rope_memory_ = Buffer(static_cast<size_t>(positions * model_.head_dim) * 4);
    rope_table_ = view_of(static_cast<float*>(rope_memory_.data()), {positions, model_.head_dim});
    ops::fill_rope_table(rope_frequencies(model_), rope_table_);
  }
}

void TransformerChunk::enter(int64_t part, PartWatch::Pass pass) const {
  if (watch_) watch_->enter(part, pass);
}
void TransformerChunk::leave(int64_t part, PartWatch::Pass pass) const {
  if (watch_) watch_->leave(part, pass);
}

nn::BlockPlace TransformerChunk::place(const MicroBatch& b) const {
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

void TransformerChunk::embed(const MicroBatch& b, int slot) {
  if (vocabulary_)
    return vocabulary_->look_up(b.tokens, embedding_, b.positions, position_, m_.scratch.partial,
                                input(slot));
  const int64_t n = options_.rows * options_.length;
  ops::EmbeddingForward a{
      view_of(const_cast<int32_t*>(b.tokens.data()), {n}), embedding_.compute, input(slot), {}, {}};
  if (position_)
    a.positions = view_of(const_cast<int32_t*>(b.positions.data()), {n}),
    a.position_table = position_.compute;
  ops::embedding_forward(context_, a);
}

void TransformerChunk::forward(const MicroBatch& b, int slot) {
  constexpr auto kPass = PartWatch::Pass::kForward;
  const nn::BlockPlace where = place(b);
  const auto& saved = m_.saved[static_cast<size_t>(slot)];
  if (chunk_.embeds) {
    enter(-1, kPass);
    embed(b, slot);
    leave(-1, kPass);
  }
  for (size_t l = 0; l < blocks_.size(); ++l) {
    enter(chunk_.first + static_cast<int64_t>(l), kPass);
    blocks_[l].forward(context_, l ? saved[l - 1].x2 : saved[0].x1, l ? m_.scratch.delta : TensorView{},
                       where, saved[l], m_.scratch);
    leave(chunk_.first + static_cast<int64_t>(l), kPass);
  }
  if (!chunk_.heads) return add(saved.back().x2, m_.scratch.delta, m_.x_between);
  enter(model_.layers, kPass);
  const TensorView x = m_.x_final[static_cast<size_t>(slot)];
  ops::NormForward a;
  a.form = model_.norm == NormKind::kLayerNorm ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = saved.back().x2, a.delta = m_.scratch.delta, a.x_out = x;
  a.gain = norm_.value, a.bias = norm_bias_.value, a.y = m_.y_final, a.rstd = m_.rstd, a.mean = m_.mean;
  a.eps = static_cast<float>(model_.norm_eps);
  ops::norm_forward(context_, a);
  fresh_ = slot;
  leave(model_.layers, kPass);
}

// Of a slot whose output of the final norm another slot has overwritten meanwhile: the same bits again.
void TransformerChunk::final_norm(int slot) {
  STOKER_CHECK(chunk_.heads);
  if (fresh_ == slot) return;
  ops::NormForward a;
  a.form = model_.norm == NormKind::kLayerNorm ? ops::NormForm::kLayer : ops::NormForm::kRms;
  a.x = m_.x_final[static_cast<size_t>(slot)];
  a.gain = norm_.value, a.bias = norm_bias_.value, a.y = m_.y_final, a.rstd = m_.rstd, a.mean = m_.mean;
  a.eps = static_cast<float>(model_.norm_eps);
  ops::norm_forward(context_, a);
  fresh_ = slot;
}

double TransformerChunk::head(const MicroBatch& b, bool gradients, float grad_scale) {
  const int64_t tokens = options_.rows * options_.length, chunk = m_.logits.shape[0];
  STOKER_CHECK(static_cast<int64_t>(b.targets.size()) == tokens);
  const TensorView targets = view_of(const_cast<int32_t*>(b.targets.data()), {tokens});
  if (options_.split_rows) peers_.tensor->gather_rows(m_.y_final, m_.y_head, {});
  const TensorView dy_all = vocabulary_ ? m_.scratch.partial : m_.scratch.dy;
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t end = std::min(tokens, begin + chunk);
    const TensorView y = m_.y_head.slice_rows(begin, end), logits = m_.logits.slice_rows(0, end - begin);
    ops::linear_forward(context_, {y, head_.compute, {}, logits});
    ops::CrossEntropy loss{
        logits, targets.slice_rows(begin, end), m_.losses.slice_rows(begin, end), {}, grad_scale};
    if (gradients) loss.dlogits = m_.dlogits.slice_rows(0, end - begin);
    if (vocabulary_)
      vocabulary_->loss(context_, logits,
                        b.targets.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                        loss.loss, loss.dlogits, grad_scale);
    else ops::cross_entropy(context_, loss);
    if (!gradients) continue;
    ops::linear_backward_weight(context_, {loss.dlogits, y, head_.grad, {}});
    ops::linear_backward_input(context_, {loss.dlogits, head_.compute, dy_all.slice_rows(begin, end)});
  }
  if (vocabulary_ && gradients) peers_.tensor->sum(m_.scratch.partial, {}, {}, {}, m_.scratch.dy);
  double sum = 0;
  for (int64_t i = 0; i < tokens; ++i) sum += static_cast<double>(m_.losses.as<float>()[i]);
  return sum;
}

double TransformerChunk::loss(const MicroBatch& b, int slot) {
  enter(model_.layers, PartWatch::Pass::kForward);
  final_norm(slot);
  const double sum = head(b, false, 0);
  leave(model_.layers, PartWatch::Pass::kForward);
  return sum;
}

void TransformerChunk::logits(int slot, TensorView out) {
  STOKER_CHECK(!vocabulary_, "a worker with a part of the vocabulary has no whole logits");
  final_norm(slot);
  ops::linear_forward(context_, {m_.y_final, head_.compute, {}, out});
}

double TransformerChunk::backward(const MicroBatch& b, int slot, float grad_scale) {
  STOKER_CHECK(options_.training && store_.grads());
  constexpr auto kPass = PartWatch::Pass::kBackward;
  const nn::BlockPlace where = place(b);
  const auto& saved = m_.saved[static_cast<size_t>(slot)];
  const auto& stash = m_.stash[static_cast<size_t>(slot)];
  double sum = 0;
  if (chunk_.heads) {
    enter(model_.layers, kPass);
    final_norm(slot);
    sum = head(b, true, grad_scale);
    ops::NormBackward a;
    a.form = model_.norm == NormKind::kLayerNorm ? ops::NormForm::kLayer : ops::NormForm::kRms;
    a.x = m_.x_final[static_cast<size_t>(slot)], a.gain = norm_.value, a.rstd = m_.rstd, a.mean = m_.mean;
    a.dy = m_.scratch.dy, a.dx = m_.g, a.dgain = norm_.grad, a.dbias = norm_bias_.grad;
    ops::norm_backward(context_, a);
    leave(model_.layers, kPass);
  }
  for (size_t l = blocks_.size(); l-- > 0;) {
    enter(chunk_.first + static_cast<int64_t>(l), kPass);
    blocks_[l].backward(context_, m_.g, where, saved[l], m_.scratch,
                        options_.split_backward ? stash[l] : nn::BlockStash{});
    leave(chunk_.first + static_cast<int64_t>(l), kPass);
  }
  if (chunk_.embeds) {
    enter(-1, kPass);
    embed_backward(b, where);
    leave(-1, kPass);
  }
  return sum;
}

void TransformerChunk::embed_backward(const MicroBatch& b, const nn::BlockPlace& where) {
  const int64_t n = options_.rows * options_.length;
  const TensorView positions = position_ ? where.positions : TensorView{},
                   dpositions = position_ ? position_.grad : TensorView{};
  if (vocabulary_) return slice_backward(b, positions, dpositions);
  if (collects_lookups()) {
    lookups_.observe(b.tokens);
    lookups_.add(context_, b.tokens, m_.g, positions, dpositions);
    return;
  }
  ops::embedding_backward(context_, {view_of(const_cast<int32_t*>(b.tokens.data()), {n}), m_.g,
                                     embedding_.grad, positions, dpositions});
}

std::span<const int32_t> TransformerChunk::looked_up(std::span<const int32_t> tokens) {
  return vocabulary_ ? vocabulary_->own_tokens(tokens) : tokens;
}

// As above for the tokens that this worker has; positions, which all have, first and from all rows.
void TransformerChunk::slice_backward(const MicroBatch& b, TensorView positions, TensorView dpositions) {
  TensorView g = m_.g;
  if (options_.split_rows) peers_.tensor->gather_rows(m_.g, g = m_.scratch.whole, {});
  if (positions)  // a table of their own, looked up by position
    ops::embedding_backward(context_, {positions, g, dpositions, {}, {}});
  const auto tokens = vocabulary_->own_tokens(b.tokens);
  const TensorView rows = vocabulary_->own_rows(b.tokens, g);
  if (tokens.empty()) return;
  if (collects_lookups()) {
    lookups_.observe(tokens);
    lookups_.add(context_, tokens, rows, {}, {});
    return;
  }
  ops::embedding_backward(
      context_, {view_of(const_cast<int32_t*>(tokens.data()), {static_cast<int64_t>(tokens.size())}),
                 rows,
                 embedding_.grad,
                 {},
                 {}});
}

void TransformerChunk::backward_weights(int slot) {
  STOKER_CHECK(options_.split_backward);
  for (size_t l = blocks_.size(); l-- > 0;) {
    blocks_[l].backward_weights(context_, m_.saved[static_cast<size_t>(slot)][l], m_.scratch,
                                m_.stash[static_cast<size_t>(slot)][l]);
    leave(chunk_.first + static_cast<int64_t>(l), PartWatch::Pass::kBackward);
  }
}

}  // namespace stoker
