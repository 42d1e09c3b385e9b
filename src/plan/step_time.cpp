// Time of one optimizer step. docs/planner-model.md has the equations in the order of this file.
#include <algorithm>
#include <cmath>

#include "plan/catalog.h"
#include "plan/collectives.h"
#include "plan/matrix_product.h"
#include "plan/predict.h"

namespace stoker::plan {
namespace {

double num(int64_t v) { return static_cast<double>(v); }

struct Rates {  // of one accelerator, achievable
  double linear, dense16, attention, memory;
  double kernel, tile;
};

double product_seconds(double m, double n, double k, double rate, const Rates& r) {
  return plan::product_seconds(m, n, k, {rate, r.memory, r.kernel, r.tile});
}

class StepModel {
 public:
  StepModel(const PlanInput& in, const Efficiency& e) : run_(in.run), hw_(in.hardware), e_(e), in_(in) {
    const ModelSpec& m = run_.model;
    const LayoutSpec& l = run_.layout;
    d_ = num(m.hidden), q_ = num(m.heads * m.head_dim), kv_ = num(m.kv_heads * m.head_dim);
    t_ = num(l.tensor), seq_ = num(run_.batch.sequence_length);
    tokens_ = num(run_.batch.micro_batch) * seq_ / num(l.context);
    mats_ = m.activation == ActivationKind::kSwiGlu ? 3 : 2;
    routed_share_ = m.experts ? num(m.layers - m.dense_layers) / num(m.layers) : 0;
    adapter_ = trains_adapters(run_);
    low_rank_ = adapter_ && run_.lora_rank > 0;
    set_rates();
    set_fabric();
  }

  StepTime compute();

 private:
  void set_rates();
  void set_fabric();
  double linear_forward() const;  // seconds of one layer's matrix products, forward
  double expert_forward() const;
  double routing_forward() const;  // rows permuted to their experts and back; as long in the backward pass
  double attention_forward() const;
  bool plain_softmax() const;
  double passes_forward() const;  // element-wise work of one layer
  double head_seconds() const;
  double tensor_comm_forward() const;
  double expert_comm_forward() const;  // what of it is not hidden
  double host_of_experts() const;      // times the launches of a dense layer
  double local_experts() const { return std::max(1.0, num(run_.model.experts) / num(run_.layout.expert)); }
  double context_comm_forward() const;
  double data_comm(double forward_seconds, double backward_seconds, double micro_batches) const;
  double optimizer_seconds() const;
  Group data_group() const {
    const LayoutSpec& l = run_.layout;
    return {l.zero_stage ? std::min(l.zero_shards(), l.data * l.context) : l.data * l.context, l.tensor};
  }

  const RunSpec& run_;
  const HardwareSpec& hw_;
  const Efficiency& e_;
  const PlanInput& in_;
  double d_, q_, kv_, t_, seq_, tokens_, mats_;
  double routed_share_ = 0;  // of the layers: those with experts
  bool adapter_ = false;     // frozen weights
  bool low_rank_ = false;    // with matrices beside them, not only tokens before the text
  Rates rate_{};
  Fabric fabric_;
};

void StepModel::set_rates() {
  const AcceleratorSpec& a = hw_.accelerator;
  const double bf16 = std::max(a.bf16.value(), a.fp16.value());
  const double peak16 = bf16 > 0 ? bf16 : a.fp32.value();
  rate_.dense16 = e_[Term::kMatmul16] * peak16;
  switch (run_.precision) {
    case Precision::kFp32:
      rate_.linear = rate_.dense16 = e_[Term::kMatmul32] * a.fp32.value();
      break;
    case Precision::kFp16:
    case Precision::kBf16:
      rate_.linear = rate_.dense16;
      break;
    case Precision::kFp8:
      rate_.linear = a.fp8.value() > 0 ? e_[Term::kMatmul8] * a.fp8.value() : rate_.dense16;
      break;
    case Precision::kFp4:
      rate_.linear = a.fp4.value() > 0   ? e_[Term::kMatmul4] * a.fp4.value()
                     : a.fp8.value() > 0 ? e_[Term::kMatmul8] * a.fp8.value()
                                         : rate_.dense16;
      break;
  }
  rate_.attention = e_[Term::kAttention] * (run_.precision == Precision::kFp32 ? a.fp32.value() : peak16);
  rate_.memory = e_[Term::kMemory] * a.memory_bandwidth.value();
  rate_.kernel = e_[Term::kKernel];
  rate_.tile = e_[Term::kTile];
}

void StepModel::set_fabric() {
  fabric_.start = e_[Term::kLatency];
  if (hw_.levels.empty()) return;
  const NetworkLevel& inner = hw_.levels.front();
  const NetworkLevel& outer = hw_.levels.back();
  fabric_.inside = e_[Term::kInside] * inner.bandwidth.value();
  fabric_.between = e_[Term::kBetween] * outer.bandwidth.value();
  fabric_.domain = hw_.levels.size() == 1 ? 0 : inner.accelerators;
}

double StepModel::linear_forward() const {
  const ModelSpec& m = run_.model;
  double s = product_seconds(tokens_, (q_ + 2 * kv_) / t_, d_, rate_.linear, rate_) +
             product_seconds(tokens_, d_, q_ / t_, rate_.linear, rate_);
  auto feed_forward = [&](double wide) {
    if (wide <= 0) return 0.0;
    return product_seconds(tokens_, (mats_ - 1) * wide / t_, d_, rate_.linear, rate_) +
           product_seconds(tokens_, d_, wide / t_, rate_.linear, rate_);
  };
  // Weights of 4 bits are made 16 wide before each product.
  if (run_.training == TrainingKind::kQlora)
    s += (d_ * (2 * q_ + 2 * kv_) + mats_ * d_ * num(m.ffn)) / t_ * (0.56 + 2) / rate_.memory;
  s += (1 - routed_share_) * feed_forward(num(m.ffn));
  if (m.experts) s += routed_share_ * feed_forward(num(m.shared_expert_ffn));
  return s;
}

double StepModel::expert_forward() const {
  const ModelSpec& m = run_.model;
  if (!m.experts) return 0;
  const LayoutSpec& l = run_.layout;
  const double etp = num(l.expert_tensor_size());
  const double local = local_experts();
  const double routed = tokens_ * num(m.experts_per_token) * etp / t_;  // rows this worker multiplies
  const double each = std::max(1.0, routed / local);
  const double width = num(m.expert_ffn) / etp;
  // Groups of few rows wait for their expert's weights: that is not hidden behind another group's arithmetic.
  const double weights = 2 * mats_ * d_ * width / rate_.memory;
  const double one = weights + product_seconds(each, (mats_ - 1) * width, d_, rate_.linear, rate_) +
                     product_seconds(each, d_, width, rate_.linear, rate_) - 2 * rate_.kernel;
  return routed_share_ * e_[Term::kExperts] * (local * one + 2 * rate_.kernel);
}

double StepModel::routing_forward() const {
  if (!run_.model.experts) return 0;
  const double rows =
      tokens_ * num(run_.model.experts_per_token) * num(run_.layout.expert_tensor_size()) / t_;
  return routed_share_ * e_[Term::kRouting] * 8 * rows * d_ * 2 / rate_.memory;
}

double StepModel::attention_forward() const {
  const double flops = 4 * tokens_ * seq_ * q_ / t_ * in_.score_scale;
  // A narrow head leaves the matrix units waiting for the softmax: 128 wide is the reference.
  const double width = num(run_.model.head_dim), fill = width / (width + 40) * (168.0 / 128.0);
  if (run_.flash_attention) return flops / 2 / (rate_.attention * fill) + rate_.kernel;
  const double scores = tokens_ * seq_ * num(run_.model.heads) / t_;
  // Tensor cores take operands of 16 bytes: other widths go another way.
  const double slower = run_.model.head_dim % 8 ? e_[Term::kMisaligned] : 1;
  return slower * flops / rate_.dense16 + 2 * scores * e_[Term::kUnfusedAttention] / rate_.memory +
         5 * rate_.kernel;
}

// Fused softmax kernels take four score matrices at a time; where they do not divide, single kernels do it.
bool StepModel::plain_softmax() const {
  return !run_.flash_attention && (run_.model.heads / run_.layout.tensor * run_.batch.micro_batch) % 4 != 0;
}

double StepModel::passes_forward() const {
  const ModelSpec& m = run_.model;
  const double whole = run_.layout.sequence_parallel ? t_ : 1;
  const double routed = routed_share_ * num(m.experts_per_token * m.expert_ffn + m.shared_expert_ffn) +
                        (1 - routed_share_) * num(m.ffn);
  // norms and residuals read and write the stream about eight times; rotation twice; activation reads its
  // inputs and writes its output
  double elements = tokens_ * (8 * d_ / whole + 2 * (q_ + kv_) / t_ + mats_ * routed / t_);
  double bytes = 2 * elements * e_[Term::kPasses] + 2 * tokens_ * in_.scan_elements / t_ * e_[Term::kScan];
  if (run_.precision == Precision::kFp8 || run_.precision == Precision::kFp4)
    bytes += e_[Term::kQuantise] * 3 * tokens_ * (2 * d_ + q_ / t_ + routed / t_);
  return bytes / rate_.memory + 10 * rate_.kernel;
}

double StepModel::head_seconds() const {  // forward and backward, once per micro-batch on the last stage
  const double v = num(run_.model.vocab) / t_;
  const double passes = adapter_ ? 2 : 3;
  return passes * product_seconds(tokens_, v, d_, rate_.dense16, rate_) +
         tokens_ * v * 16 * e_[Term::kPasses] / rate_.memory + 10 * rate_.kernel;
}

double StepModel::tensor_comm_forward() const {
  if (run_.layout.tensor == 1) return 0;
  const double bytes = tokens_ * d_ * 2;
  return 2 * all_reduce_seconds(fabric_, {run_.layout.tensor, 1}, bytes);
}

double StepModel::expert_comm_forward() const {
  const ModelSpec& m = run_.model;
  const LayoutSpec& l = run_.layout;
  if (!m.experts || l.expert == 1) return 0;
  const Group group{l.expert, l.expert_tensor_size()};
  const AllToAll t = all_to_all_seconds(fabric_, group, tokens_ * d_ * 2 / t_, num(m.experts_per_token));
  return 2 * routed_share_ *
         (e_[Term::kExpertExposed] * t.inside + e_[Term::kExpertBetween] * t.between +
          e_[Term::kExpertStart] * std::log2(num(l.expert)));
}

double StepModel::context_comm_forward() const {
  const LayoutSpec& l = run_.layout;
  if (l.context == 1) return 0;
  const double bytes = tokens_ * num(l.context) * 2 * kv_ / t_ * 2;
  return all_gather_seconds(fabric_, {l.context, l.tensor}, bytes);
}

double StepModel::data_comm(double forward_seconds, double backward_seconds, double micro_batches) const {
  const LayoutSpec& l = run_.layout;
  const Group group = data_group();
  if (l.data * l.context == 1) return 0;
  ParameterShare held = stage_parameters(run_.model, l, 0);
  if (adapter_) held = {held.total() * 0.005, 0, 0};
  const double dense = held.dense + held.embedding;
  const double weight = 2, gradient = run_.optimizer.gradient_bytes;
  const int64_t expert_replicas =
      std::max<int64_t>(1, l.data * l.context * l.tensor / (l.expert * l.expert_tensor_size()));
  const Group expert_group{expert_replicas, l.expert * l.expert_tensor_size()};
  double total = 0, hideable = backward_seconds;
  if (l.zero_stage == 3) {
    // gathered for forward and again for backward, gradients scattered: for every micro-batch
    const double layers = num(run_.model.layers) / num(l.pipeline);
    const double gather = layers * (all_gather_seconds(fabric_, group, dense * weight / layers) +
                                    all_gather_seconds(fabric_, expert_group, held.expert * weight / layers));
    const double scatter = layers * (all_gather_seconds(fabric_, group, dense * 2 / layers) +
                                     all_gather_seconds(fabric_, expert_group, held.expert * 2 / layers));
    total = micro_batches * (2 * gather + (adapter_ ? 0 : scatter));
    hideable = (forward_seconds + backward_seconds) * micro_batches;
    const int64_t replicas = l.data * l.context / std::max<int64_t>(1, group.ranks);
    if (replicas > 1)
      total += all_reduce_seconds(fabric_, {replicas, group.ranks * l.tensor},
                                  dense * gradient / num(group.ranks));
  } else {
    const double scatter = all_gather_seconds(fabric_, {l.data * l.context, l.tensor}, dense * gradient) +
                           all_gather_seconds(fabric_, expert_group, held.expert * gradient);
    const double gather =
        all_gather_seconds(fabric_, {l.data * l.context, l.tensor},
                           dense * (l.zero_stage ? weight : gradient)) +
        all_gather_seconds(fabric_, expert_group, held.expert * (l.zero_stage ? weight : gradient));
    total = scatter + gather;
  }
  const double hidden = (1 - e_[Term::kDataExposed]) * total;
  if (hidden <= 0) return total;
  // what hides cannot exceed the work it hides behind
  const double fits = hidden * hideable / std::pow(std::pow(hidden, 4) + std::pow(hideable, 4), 0.25);
  return total - fits;
}

double StepModel::optimizer_seconds() const {
  const LayoutSpec& l = run_.layout;
  const ParameterShare held = stage_parameters(run_.model, l, 0);
  const double dense_shards = l.zero_stage ? num(l.zero_shards()) : 1;
  const double expert_shards =
      std::max(1.0, dense_shards * t_ / (num(l.expert) * num(l.expert_tensor_size())));
  double parameters = (held.dense + held.embedding) / dense_shards + held.expert / expert_shards;
  if (adapter_) parameters *= 0.005;
  // gradient read; master weights and moments read and written; 16-bit weights written
  const double bytes =
      run_.optimizer.gradient_bytes + 2 * run_.optimizer.master_bytes + 2 * run_.optimizer.state_bytes + 2;
  return parameters * bytes * e_[Term::kOptimizer] / rate_.memory;
}

// Half of it is the router and the exchange, half grows with the experts that each worker holds: every one has
// its own products and casts. The fitted number is that of eight.
double StepModel::host_of_experts() const {
  if (!run_.model.experts) return 1;
  return 1 + (e_[Term::kHostExperts] - 1) * (0.5 + local_experts() / 16);
}

StepTime StepModel::compute() {
  const ModelSpec& m = run_.model;
  const LayoutSpec& l = run_.layout;
  const double clock = e_[Term::kCompute] * (low_rank_ ? e_[Term::kAdapter] : 1);
  const double micro = std::max(1.0, num(run_.batch.global_batch) / num(run_.batch.micro_batch * l.data));
  // Layers that do not divide evenly are dealt so that the head's stage has fewer.
  const int64_t pieces = l.pipeline * l.virtual_stages;
  const double stage_layers = num((m.layers + pieces - 1) / pieces * l.virtual_stages);
  const double spare_layers = stage_layers * num(l.pipeline) - num(m.layers);

  const double linear = clock * (linear_forward() + expert_forward());
  const double attention = clock * attention_forward();
  const double passes = clock * (passes_forward() + routing_forward());
  const double backward_linear = (adapter_ ? 1.0 : 2.0) * linear;
  const double backward_attention = (run_.flash_attention ? 2.5 : 2.0) * attention;
  const double backward_passes = 1.5 * passes;
  double again_linear = 0, again_attention = 0, again_passes = 0;
  if (run_.recompute == Recompute::kFull)
    again_linear = linear, again_attention = attention, again_passes = passes;
  else if (run_.recompute == Recompute::kSelective && habits_of(in_.engine).selective_ops)
    again_linear = linear / 2, again_passes = passes;
  else if (run_.recompute == Recompute::kSelective && !run_.flash_attention) again_attention = attention;
  const double again = again_linear + again_attention + again_passes;

  const double tensor = e_[Term::kTensorExposed] * tensor_comm_forward();
  const double expert = expert_comm_forward();
  const double context = e_[Term::kContextExposed] * context_comm_forward();
  const double comm_passes = run_.recompute == Recompute::kFull ? 3 : 2;  // forward, backward, again

  // The host launches kernels; where it is slower the accelerator waits.
  // The ranks of a tensor group wait at each collective for the slowest host among them.
  const double host =
      e_[Term::kHostLayer] * host_of_experts() * (1 + e_[Term::kHostTensor] * std::min(t_ - 1, 7.0)) *
      (low_rank_ ? e_[Term::kHostAdapter] : 1.0) * (plain_softmax() ? e_[Term::kHostSoftmax] : 1.0);
  const double forward_device = linear + attention + passes + tensor + expert + context;
  const double backward_device = backward_linear + backward_attention + backward_passes + again +
                                 (comm_passes - 1) * (tensor + expert) + context;
  const double backward_host = host * (run_.recompute == Recompute::kFull ? 1.8 : 0.8);
  const double forward_wait = soft_max(forward_device, host) - forward_device;
  const double backward_wait = soft_max(backward_device, backward_host) - backward_device;
  const double host_wait = forward_wait + backward_wait;

  const double head = clock * head_seconds();
  const double layer = forward_device + backward_device + host_wait;
  const double head_wait = std::max(0.0, head - spare_layers * layer);
  const double mean_stage = (num(m.layers) * layer + head) / num(l.pipeline);

  StepTime out;
  auto at = [&out](StepTerm t) -> Seconds& { return out.terms[static_cast<size_t>(t)]; };
  const double times = micro * stage_layers;
  at(StepTerm::kMatmul) = Seconds(times * (linear + backward_linear) + micro * head_wait);
  at(StepTerm::kAttention) = Seconds(times * (attention + backward_attention));
  at(StepTerm::kMemoryBound) = Seconds(times * (passes + backward_passes));
  at(StepTerm::kRecompute) = Seconds(times * again);
  at(StepTerm::kHost) = Seconds(times * host_wait);
  at(StepTerm::kTensorComm) = Seconds(times * comm_passes * tensor);
  at(StepTerm::kExpertComm) = Seconds(times * comm_passes * expert);
  at(StepTerm::kContextComm) = Seconds(times * 2 * context);

  if (l.pipeline > 1) {
    const double whole = l.sequence_parallel ? t_ : 1;
    const double v = num(l.virtual_stages);
    const double hop = send_seconds(fabric_, l.tensor * l.context * l.data, tokens_ * d_ * 2 / whole);
    at(StepTerm::kPipelineComm) =
        Seconds(e_[Term::kPipelineExposed] * 2 * hop * (micro * v + num(l.pipeline) - 1));
    double bubble = (num(l.pipeline) - 1) / v;
    if (l.schedule == PipelineSchedule::kZeroBubble) bubble /= 3;
    at(StepTerm::kBubble) = Seconds(e_[Term::kBubble] * bubble * mean_stage);
  }
  // Collectives of other kinds hold the same links: arithmetic hides the exchange, and so does waiting for
  // the host.
  const double forward_work = stage_layers * (linear + attention + passes + forward_wait);
  const double backward_work =
      stage_layers * (backward_linear + backward_attention + backward_passes + again + backward_wait);
  at(StepTerm::kDataComm) = Seconds(data_comm(forward_work, backward_work, micro));
  at(StepTerm::kOptimizer) = Seconds(run_.optimizer_offload ? 4 * optimizer_seconds() : optimizer_seconds());
  at(StepTerm::kFixed) = Seconds(e_[Term::kFixed]);
  Seconds sum;
  for (Seconds s : out.terms) sum += s;
  at(StepTerm::kStragglers) = sum * (e_[Term::kStraggler] * std::log2(num(hw_.nodes())));
  out.total = sum + out[StepTerm::kStragglers];
  return out;
}

}  // namespace

StepTime predict_step_time(const PlanInput& input, const Efficiency& efficiency) {
  return StepModel(input, efficiency).compute();
}

Flops model_flops_per_step(const PlanInput& input) {
  const RunSpec& run = input.run;
  const double tokens = num(run.batch.tokens());
  const double attention =
      12 * num(run.model.layers * run.model.heads * run.model.head_dim) * num(run.batch.sequence_length);
  double linear = train_flops_per_token(run.model, run.batch.sequence_length) - attention;
  if (trains_adapters(run)) linear *= 2.0 / 3;
  return Flops(tokens * (linear + attention * input.score_scale));
}

}  // namespace stoker::plan
