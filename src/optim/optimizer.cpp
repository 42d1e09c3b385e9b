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

constexpr int kNewtonSchulzSteps = 5;

Dtype muon_dtype(const OptimizedParameter& p) { return p.copy ? Dtype::kBf16 : Dtype::kF32; }

// In fp32 an operand is the matrix itself; in bf16 it is a rounded copy.
struct MuonSpace {
  TensorView x, from, to, gram, gram_operand, poly, poly_operand;
};
MuonSpace take_muon_space(Arena& arena, int64_t rows, int64_t columns, Dtype dtype) {
  const int64_t m = std::min(rows, columns);
  MuonSpace w;
  w.x = arena.take({rows, columns}, Dtype::kF32);
  w.from = dtype == Dtype::kF32 ? w.x : arena.take({rows, columns}, dtype);
  w.to = arena.take({rows, columns}, dtype);
  w.gram = arena.take({m, m}, Dtype::kF32);
  w.gram_operand = dtype == Dtype::kF32 ? w.gram : arena.take({m, m}, dtype);
  w.poly = arena.take({m, m}, Dtype::kF32);
  w.poly_operand = dtype == Dtype::kF32 ? w.poly : arena.take({m, m}, dtype);
  return w;
}

size_t muon_space_bytes(int64_t rows, int64_t columns, Dtype dtype) {
  Arena plan;
  take_muon_space(plan, rows, columns, dtype);
  return plan.bytes();
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

size_t Optimizer::workspace_bytes(std::span<const ParameterRow> rows, const OptimizerSettings& settings,
                                  Precision precision) {
  size_t most = 0;
  if (settings.kind == OptimizerKind::kMuon)
    for (const ParameterRow& row : rows)
      if (uses_muon(row.role))
        most = std::max(most, muon_space_bytes(row.shape[0], row.shape[1],
                                               precision == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32));
  return most;
}

Optimizer::Optimizer(std::vector<OptimizedParameter> parameters, OptimizerSettings settings)
    : settings_(settings) {
  size_t bytes = 0;
  const OptimizedParameter* widest = nullptr;
  size_t workspace = 0;
  for (const OptimizedParameter& p : parameters) {
    bytes += p.value.bytes() * (two_moments(p.role, settings) ? 2 : 1);
    if (settings.kind == OptimizerKind::kMuon && uses_muon(p.role)) {
      const size_t needs = muon_space_bytes(p.value.shape[0], p.value.shape[1], muon_dtype(p));
      if (needs > workspace) {
        workspace = needs;
        widest = &p;
      }
    }
  }
  memory_ = Buffer(bytes);
  if (widest) {
    take_muon_space(workspace_, widest->value.shape[0], widest->value.shape[1], muon_dtype(*widest));
    workspace_.commit();
  }
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

// Newton-Schulz on the smaller Gram matrix, without ever transposing: a tall X (rows > columns) uses X^T X from the right, a
// wide one X X^T from the left. In bf16 runs the products take bf16 operands, as the published method does.
void Optimizer::muon(ops::Context& context, const Slot& s, const UpdateArguments& u) {
  const OptimizedParameter& p = s.parameter;
  const int64_t rows = p.value.shape[0], columns = p.value.shape[1], count = rows * columns;
  const bool tall = rows > columns;
  const int64_t m = std::min(rows, columns);
  const Dtype dtype = muon_dtype(p);
  workspace_.rewind();
  const MuonSpace w = take_muon_space(workspace_, rows, columns, dtype);
  float* momentum = s.first.as<float>();
  const float* grad = p.grad.as<float>();
  float* x = w.x.as<float>();
  const float beta = settings_.momentum;
  parallel_ranges(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float g = grad[i] * u.grad_scale;
      momentum[i] = beta * momentum[i] + (1 - beta) * g;
      x[i] = (1 - beta) * g + beta * momentum[i];  // Nesterov
    }
  });
  const float shrink =
      1 / (static_cast<float>(std::sqrt(ops::sum_squares(context, w.x.reshaped({count})))) + 1e-7f);
  parallel_ranges(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) x[i] *= shrink;
  });
  const auto rounded = [&](TensorView from, TensorView to) {
    if (dtype == Dtype::kBf16) ops::round_copy(context, {from, to});
  };
  rounded(w.x, w.from);
  constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  TensorView from = w.from, to = w.to;
  for (int iteration = 0; iteration < kNewtonSchulzSteps; ++iteration) {
    if (tall) ops::linear_backward_weight(context, {from, from, w.gram, {}, ops::Accumulate::kOverwrite});
    else ops::linear_forward(context, {from, from, {}, w.gram});
    rounded(w.gram, w.gram_operand);
    ops::linear_forward(context,
                        {w.gram_operand, w.gram_operand, {}, w.poly});  // the Gram matrix is symmetric
    float* poly = w.poly.as<float>();
    const float* gram = w.gram.as<float>();
    parallel_ranges(m, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t i = r * m; i < (r + 1) * m; ++i) poly[i] = b * gram[i] + c * poly[i];
        poly[r * m + r] += a;
      }
    });
    rounded(w.poly, w.poly_operand);
    // X (a I + b A + c A^2), or the same from the left; the polynomial is symmetric too.
    if (iteration + 1 == kNewtonSchulzSteps && dtype == Dtype::kBf16)
      to = w.x;  // the last one stays unrounded
    if (tall) ops::linear_forward(context, {from, w.poly_operand, {}, to});
    else ops::linear_backward_input(context, {w.poly_operand, from, to});
    std::swap(from, to);
  }
  const float* orthogonal = from.as<float>();
  const float step = u.learning_rate * 0.2f * std::sqrt(static_cast<float>(std::max(rows, columns))),
              keep = 1 - u.learning_rate * settings_.weight_decay;
  float* value = p.value.as<float>();
  parallel_ranges(count, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) value[i] = value[i] * keep - step * orthogonal[i];
  });
  rounded(p.value, p.copy);
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
