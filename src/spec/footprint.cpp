#include "spec/footprint.h"

#include <algorithm>
#include <cmath>

namespace stoker {
namespace {

double num(int64_t v) { return static_cast<double>(v); }
double matrices_in_ffn(const ModelSpec& m) { return m.activation == ActivationKind::kSwiGlu ? 3 : 2; }
double layers_on_stage(const ModelSpec& m, const LayoutSpec& l) {
  const int64_t chunks = l.pipeline * l.virtual_stages;
  return num((m.layers + chunks - 1) / chunks *
             l.virtual_stages);  // the fullest stage when it does not divide
}

// One micro-batch on one worker, in elements; `split` is divided by tensor parallelism, `whole` only by
// sequence parallelism. `bytes` are neither: masks and statistics of fixed width.
struct LayerElements {
  double split = 0, whole = 0, scores = 0, split_bytes = 0, whole_bytes = 0, score_bytes = 0;
};

LayerElements layer_elements(const RunSpec& run, const ActivationStyle& style, bool keep_scores) {
  const ModelSpec& m = run.model;
  const double d = num(m.hidden), q = num(m.heads * m.head_dim), kv = num(m.kv_heads * m.head_dim);
  const double context = num(run.layout.context), seq = num(run.batch.sequence_length);
  const double tokens = num(run.batch.micro_batch) * seq / context;
  LayerElements e;
  const double norm = style.keeps_norm_output ? 2 : 1;
  e.whole += tokens * 2 * norm * d;
  e.split += tokens * (q + 2 * kv + q);
  if (keep_scores) {
    const double scores = tokens * num(m.heads) * seq;
    e.scores = scores * (style.dropout_masks ? 2 : 1);
    e.score_bytes = style.dropout_masks ? scores : 0;
  } else {
    e.split_bytes += tokens * num(m.heads) * 4;  // log-sum-exp of each row
  }
  if (style.dropout_masks) e.whole_bytes += tokens * 2 * d;
  const double gated = matrices_in_ffn(m) - 1;  // tensors that enter the activation
  // A frozen second matrix needs no gradient, so nothing of its input is kept, unless the gate's product needs
  // it itself.
  const bool frozen = trains_adapters(run);
  const double kept = gated + (style.keeps_activation_output && (!frozen || gated > 1) ? 1 : 0);
  const double dense = m.experts ? num(m.dense_layers) / num(m.layers) : 1;
  e.split += dense * tokens * kept * num(m.ffn);
  if (m.experts) {
    const double routed = (1 - dense) * tokens * num(m.experts_per_token);
    const double etp = num(run.layout.expert_tensor_size()) / num(run.layout.tensor);
    // dispatched copies enter the experts, their outputs wait to be weighted
    e.split += routed * (kept * num(m.expert_ffn) / std::max(1.0, etp) + 2 * d);
    e.split += (1 - dense) * tokens * kept * num(m.shared_expert_ffn);
    // router scores and probabilities in fp32
    e.whole_bytes += (1 - dense) * tokens * num(m.experts) * 4 * 2;
  }
  return e;
}

// The stream that enters, the attention's output, and every other of the products.
LayerElements op_selected_elements(const RunSpec& run) {
  const ModelSpec& m = run.model;
  const double d = num(m.hidden), q = num(m.heads * m.head_dim), kv = num(m.kv_heads * m.head_dim);
  const double tokens = num(run.batch.micro_batch) * num(run.batch.sequence_length) / num(run.layout.context);
  const double gated = matrices_in_ffn(m) - 1;
  const double routed =
      m.experts ? num(m.experts_per_token * m.expert_ffn + m.shared_expert_ffn) : num(m.ffn);
  LayerElements e;
  e.whole = tokens * (d + d);  // half of the two products that return to the stream
  e.split = tokens * (q + (q + 2 * kv + gated * routed) / 2);
  e.split_bytes = tokens * num(m.heads) * 4;
  return e;
}

Bytes bytes_of(const LayerElements& e, const LayoutSpec& l, const ActivationStyle& style) {
  const double t = num(l.tensor), whole = l.sequence_parallel ? t : 1, b = style.element_bytes;
  return Bytes((style.split_scale * (e.split * b + e.split_bytes) +
                style.score_scale * (e.scores * b + e.score_bytes)) /
                   t +
               style.whole_scale * (e.whole * b + e.whole_bytes) / whole);
}

double adapter_parameters(const RunSpec& run) {  // A and B beside every matrix of every layer
  const ModelSpec& m = run.model;
  const double d = num(m.hidden), q = num(m.heads * m.head_dim), kv = num(m.kv_heads * m.head_dim);
  const double width = (d + q) + 2 * (d + kv) + (q + d) + matrices_in_ffn(m) * (d + num(m.ffn));
  return num(run.lora_rank) * width * layers_on_stage(m, run.layout) / num(run.layout.tensor);
}

}  // namespace

ParameterShare stage_parameters(const ModelSpec& m, const LayoutSpec& l, int64_t stage) {
  const double d = num(m.hidden), q = num(m.heads * m.head_dim), kv = num(m.kv_heads * m.head_dim),
               t = num(l.tensor);
  const double layers = layers_on_stage(m, l);
  const double mats = matrices_in_ffn(m);
  ParameterShare p;
  const double layer = (d * (q + 2 * kv) + q * d) / t + 2 * d * (m.norm == NormKind::kLayerNorm ? 2 : 1);
  const double dense = m.experts ? (stage == 0 ? std::min(layers, num(m.dense_layers)) : 0) : layers;
  p.dense = layers * layer + dense * mats * d * num(m.ffn) / t;
  if (m.experts) {
    p.dense += (layers - dense) * (d * num(m.experts) + mats * d * num(m.shared_expert_ffn) / t);
    p.expert = (layers - dense) * mats * d * num(m.expert_ffn) * num(m.experts) /
               (num(l.expert) * num(l.expert_tensor_size()));
  }
  const bool first = stage == 0, last = stage == l.pipeline - 1;
  if (first) p.embedding += num(m.vocab) * d / t;
  if (first && m.position == PositionKind::kLearned) p.embedding += num(m.max_positions) * d;
  if (last && (!m.tied_embeddings || !first)) p.embedding += num(m.vocab) * d / t;
  return p;
}

Bytes layer_activation_bytes(const RunSpec& run, const ActivationStyle& style) {
  if (run.recompute == Recompute::kFull) {
    const double tokens =
        num(run.batch.micro_batch) * num(run.batch.sequence_length) / num(run.layout.context);
    const double whole = run.layout.sequence_parallel ? num(run.layout.tensor) : 1;
    return Bytes(tokens * num(run.model.hidden) * style.element_bytes / whole);
  }
  if (run.recompute == Recompute::kSelective && style.selective_ops)
    return bytes_of(op_selected_elements(run), run.layout, style);
  const bool keep_scores = !run.flash_attention && run.recompute != Recompute::kSelective;
  return bytes_of(layer_elements(run, style, keep_scores), run.layout, style);
}

double in_flight_micro_batches(const LayoutSpec& l, int64_t micro_batches, int64_t stage) {
  if (l.pipeline == 1) return 1;
  const double m = num(std::max<int64_t>(1, micro_batches)), p = num(l.pipeline), s = num(stage);
  switch (l.schedule) {
    case PipelineSchedule::kAllForwardAllBackward:
      return m;
    case PipelineSchedule::kInterleaved: {
      const double v = num(l.virtual_stages);
      if (l.virtual_stages == 1) return std::min(m, p - s);
      return std::min(m, (2 * (p - s - 1) + (v - 1) * p + 1) / v);
    }
    case PipelineSchedule::kOneForwardOneBackward:
    case PipelineSchedule::kZeroBubble:
      break;
  }
  return std::min(m, p - s);
}

Bytes Footprint::sum(FootprintKind kind) const {
  Bytes total;
  for (const FootprintRow& row : rows)
    if (row.kind == kind) total += row.bytes;
  return total;
}

namespace {
Bytes of_phase(const Footprint& f, Lifetime phase) {
  Bytes total;
  for (const FootprintRow& row : f.rows)
    if (row.lifetime == Lifetime::kPersistent || row.lifetime == phase) total += row.bytes;
  return total;
}
}  // namespace

Lifetime Footprint::peak_phase() const {
  return of_phase(*this, Lifetime::kOptimizerStep) > of_phase(*this, Lifetime::kForwardBackward)
             ? Lifetime::kOptimizerStep
             : Lifetime::kForwardBackward;
}
Bytes Footprint::peak() const { return of_phase(*this, peak_phase()); }

Footprint footprint(const RunSpec& run, const FootprintOptions& options) {
  const ModelSpec& m = run.model;
  const LayoutSpec& l = run.layout;
  const ActivationStyle& style = options.style;
  Footprint f;
  f.rows.reserve(16);
  auto add = [&f](FootprintKind kind, std::string_view what, Lifetime life, double bytes) {
    if (bytes > 0) f.rows.push_back({kind, what, life, Bytes(bytes)});
  };

  const ParameterShare held = stage_parameters(m, l, options.pipeline_stage);
  const double shards = num(l.zero_shards());
  const double expert_shards =
      std::max(1.0, shards * num(l.tensor) / (num(l.expert) * num(l.expert_tensor_size())));
  const double dense = held.dense + held.embedding;
  auto sharded = [&](double d, double e, bool on) { return on ? d / shards + e / expert_shards : d + e; };

  double weight = style.fp32_parameters ? 4 : parameter_bytes(run.precision);
  const bool narrow = run.precision == Precision::kFp8 || run.precision == Precision::kFp4;
  if (trains_adapters(run) && narrow) weight = 1;  // frozen weights can stay in 8 bits
  if (run.training == TrainingKind::kQlora)
    weight = 0.5 + 4.0 / 64;  // 4 bits and one fp32 scale per block of 64
  add(FootprintKind::kParameters, "weights", Lifetime::kPersistent,
      weight * sharded(dense, held.expert, l.zero_stage == 3));
  double trained_dense = dense, trained_expert = held.expert;
  if (trains_adapters(run)) {
    trained_dense = adapter_parameters(run);
    trained_expert = 0;
    add(FootprintKind::kParameters, "adapter weights", Lifetime::kPersistent,
        parameter_bytes(run.precision) * sharded(trained_dense, 0, l.zero_stage == 3));
  }
  add(FootprintKind::kGradients, "gradients", Lifetime::kPersistent,
      run.optimizer.gradient_bytes * sharded(trained_dense, trained_expert, l.zero_stage >= 2));
  if (!run.optimizer_offload) {
    add(FootprintKind::kOptimizer, "master weights", Lifetime::kPersistent,
        run.optimizer.master_bytes * sharded(trained_dense, trained_expert, l.zero_stage >= 1));
    add(FootprintKind::kOptimizer, "moments", Lifetime::kPersistent,
        run.optimizer.state_bytes * sharded(trained_dense, trained_expert, l.zero_stage >= 1));
  }

  const double layers = layers_on_stage(m, l);
  const double in_flight = in_flight_micro_batches(l, run.batch.micro_batches(l), options.pipeline_stage);
  add(FootprintKind::kActivations, "kept for backward", Lifetime::kForwardBackward,
      layer_activation_bytes(run, style).value() * layers * in_flight);
  const Bytes whole_layer = bytes_of(layer_elements(run, style, !run.flash_attention), l, style);
  if (run.recompute == Recompute::kFull)
    add(FootprintKind::kTransient, "layer being recomputed", Lifetime::kForwardBackward, whole_layer.value());
  const double tokens = num(run.batch.micro_batch) * num(run.batch.sequence_length) / num(l.context);
  const double widest =
      std::max(matrices_in_ffn(m) * num(m.ffn), num((m.heads + 2 * m.kv_heads) * m.head_dim));
  add(FootprintKind::kTransient, "gradient of the layer's widest tensors", Lifetime::kForwardBackward,
      tokens * style.element_bytes * (widest / num(l.tensor) + 2 * num(m.hidden)));
  if (options.pipeline_stage == l.pipeline - 1)
    add(FootprintKind::kLogits, "logits and their gradient", Lifetime::kForwardBackward,
        tokens * num(m.vocab) / (style.logits_split ? num(l.tensor) : 1) * style.logits_bytes);

  if (l.zero_stage == 3) {
    const double per_layer = (held.dense + held.expert) / layers;
    // Under a pipeline the next micro-batch needs the same layers at once: they stay gathered.
    const double gathered = l.pipeline > 1 ? layers : std::min(2.0, layers);
    add(FootprintKind::kCommunication,
        l.pipeline > 1 ? "gathered parameters of the stage" : "gathered parameters of two layers",
        Lifetime::kForwardBackward, gathered * per_layer * parameter_bytes(run.precision));
    if (!trains_adapters(run))
      add(FootprintKind::kCommunication, "gradient of a gathered layer", Lifetime::kForwardBackward,
          per_layer * parameter_bytes(run.precision));
    add(FootprintKind::kCommunication, "gathered embedding", Lifetime::kForwardBackward,
        held.embedding * parameter_bytes(run.precision));
  }
  add(FootprintKind::kCommunication, "buckets", Lifetime::kPersistent, options.bucket.value());
  add(FootprintKind::kWorkspace, "context, libraries, allocator slack", Lifetime::kPersistent,
      options.workspace.value());
  return f;
}

std::string_view to_string(FootprintKind kind) {
  switch (kind) {
    case FootprintKind::kParameters:
      return "parameters";
    case FootprintKind::kGradients:
      return "gradients";
    case FootprintKind::kOptimizer:
      return "optimizer";
    case FootprintKind::kActivations:
      return "activations";
    case FootprintKind::kTransient:
      return "transient";
    case FootprintKind::kLogits:
      return "logits";
    case FootprintKind::kCommunication:
      return "communication";
    case FootprintKind::kWorkspace:
      return "workspace";
  }
  return "?";
}

}  // namespace stoker
