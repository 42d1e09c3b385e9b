#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "ops/linear.h"
#include "ops/update.h"

namespace stoker::optim {
namespace {

bool two_moments(ParameterRole role, const OptimizerSettings& s) {
  return s.kind == OptimizerKind::kAdamW || (s.kind == OptimizerKind::kMuon && !uses_muon(role));
}

}  // namespace

bool decays(ParameterRole role) { return role != ParameterRole::kNormGain && role != ParameterRole::kBias; }
bool uses_muon(ParameterRole role) { return role == ParameterRole::kMatrix; }

OptimizerKind optimizer_from_string(std::string_view name) {
  for (const OptimizerKind k : {OptimizerKind::kAdamW, OptimizerKind::kMuon, OptimizerKind::kSgd})
    if (to_string(k) == name) return k;
  fail(ErrorKind::kUsage, "optimizer.name is \"{}\": expected {}, {} or {}", name,
       to_string(OptimizerKind::kAdamW), to_string(OptimizerKind::kMuon), to_string(OptimizerKind::kSgd));
}

size_t Optimizer::state_bytes(std::span<const ParameterRow> rows, const OptimizerSettings& settings) {
  size_t bytes = 0;
  for (const ParameterRow& row : rows)
    bytes += static_cast<size_t>(row.count()) * (two_moments(row.role, settings) ? 8 : 4);
  return bytes;
}

Optimizer::Optimizer(std::vector<OptimizedParameter> parameters, OptimizerSettings settings)
    : settings_(settings) {
  size_t bytes = 0;
  int64_t widest = 0;
  for (const OptimizedParameter& p : parameters) {
    bytes += p.value.bytes() * (two_moments(p.role, settings) ? 2 : 1);
    if (settings.kind == OptimizerKind::kMuon && uses_muon(p.role)) {
      const int64_t small = std::min(p.value.shape[0], p.value.shape[1]);
      widest = std::max(widest, 3 * p.value.count() + 2 * small * small + 64);
    }
  }
  memory_ = Buffer(bytes);
  workspace_ = Buffer(static_cast<size_t>(widest) * 4);
  char* at = static_cast<char*>(memory_.data());
  for (OptimizedParameter& p : parameters) {
    Slot slot{p, p.value, {}};
    slot.first.data = at;
    at += p.value.bytes();
    if (two_moments(p.role, settings)) {
      slot.second = p.value;
      slot.second.data = at;
      at += p.value.bytes();
    }
    slots_.push_back(std::move(slot));
  }
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> out;
  for (const Slot& s : slots_) {
    out.push_back({s.parameter.name + (s.second ? ".exp_avg" : ".momentum"), s.first});
    if (s.second) out.push_back({s.parameter.name + ".exp_avg_sq", s.second});
  }
  return out;
}

void Optimizer::adamw(ops::Context& context, const Slot& s, const UpdateArguments& u) {
  const OptimizedParameter& p = s.parameter;
  ops::AdamW a{p.value,         p.grad,
               s.first,         s.second,
               p.copy,          u.learning_rate,
               settings_.beta1, settings_.beta2,
               settings_.eps,   decays(p.role) ? settings_.weight_decay : 0,
               u.grad_scale,    u.step};
  ops::adamw(context, a);
}

void Optimizer::muon(ops::Context& context, const Slot& s, const UpdateArguments& u) {
  const OptimizedParameter& p = s.parameter;
  const int64_t rows = p.value.shape[0], columns = p.value.shape[1], count = rows * columns;
  const bool tall = rows > columns;  // work on the transpose, so that the Gram matrix is the smaller one
  const int64_t m = std::min(rows, columns), n = std::max(rows, columns);
  float* memory = static_cast<float*>(workspace_.data());
  const TensorView x = view_of(memory, {m, n}), next = view_of(memory + count, {m, n});
  const TensorView gram = view_of(memory + 2 * count, {m, m}),
                   poly = view_of(memory + 2 * count + m * m, {m, m});
  float* momentum = s.first.as<float>();
  const float* grad = p.grad.as<float>();
  const float beta = settings_.momentum;
  const auto place = [&](int64_t i) { return tall ? (i % columns) * rows + i / columns : i; };
  parallel_ranges(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float g = grad[i] * u.grad_scale;
      momentum[i] = beta * momentum[i] + (1 - beta) * g;
      x.as<float>()[place(i)] = (1 - beta) * g + beta * momentum[i];  // Nesterov
    }
  });
  const float norm = static_cast<float>(std::sqrt(ops::sum_squares(context, x.reshaped({count})))) + 1e-7f;
  const float shrink = 1 / norm;
  parallel_ranges(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) x.as<float>()[i] *= shrink;
  });
  constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  TensorView from = x, to = next;
  for (int iteration = 0; iteration < 5; ++iteration) {
    ops::linear_forward(context, {from, from, {}, gram});  // X X^T
    ops::linear_forward(context, {gram, gram, {}, poly});  // (X X^T)^2: the Gram matrix is symmetric
    parallel_ranges(m * m, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        poly.as<float>()[i] = b * gram.as<float>()[i] + c * poly.as<float>()[i] + (i / m == i % m ? a : 0);
    });
    ops::linear_backward_input(context, {poly, from, to});  // (a I + b A + c A^2) X
    std::swap(from, to);
  }
  const float step = u.learning_rate * 0.2f * std::sqrt(static_cast<float>(n)),
              keep = 1 - u.learning_rate * settings_.weight_decay;
  float* value = p.value.as<float>();
  parallel_ranges(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      value[i] = value[i] * keep - step * from.as<float>()[place(i)];
      if (p.copy) p.copy.as<Bf16>()[i] = to_bf16(value[i]);
    }
  });
}

void Optimizer::update(ops::Context& context, const UpdateArguments& u) {
  for (const Slot& s : slots_) {
    if (s.second) adamw(context, s, u);
    else if (settings_.kind == OptimizerKind::kMuon) muon(context, s, u);
    else
      ops::sgd(context,
               {s.parameter.value, s.parameter.grad, s.first, s.parameter.copy, u.learning_rate,
                settings_.momentum, decays(s.parameter.role) ? settings_.weight_decay : 0, u.grad_scale});
  }
}

}  // namespace stoker::optim
