// optim/optimizer.h
// Applies one update to a list of parameters. AdamW and SGD see the parameters as flat runs; Muon orthogonalises the momentum of
// each hidden matrix and leaves embeddings, head, gains and biases to AdamW.
// State       f32, named "<parameter>.exp_avg", ".exp_avg_sq" (AdamW) or ".momentum" (Muon, SGD): the checkpoint's names
// Decay       decoupled; matrices, embeddings and the head decay, gains and biases do not
// Writes      values, their bf16 copies, the state. Gradients are only read, scaled by grad_scale
// Determinism same inputs, candidates, threads -> same bits. An update of one parameter depends on that parameter alone
// Memory      state_bytes() and workspace_bytes(), nothing else
// Precision   f32; with a bf16 copy Muon's products take bf16 operands and sum in f32 (as its authors run it)
// Source      AdamW arXiv:1711.05101. Muon: Jordan et al. 2024 (Newton-Schulz of degree 5: 3.4445, -4.7750, 2.0315), update scaled by
//             0.2 sqrt(max(rows, columns)) as Liu et al. 2025, arXiv:2502.16982, so that AdamW's rate and decay fit
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/context.h"
#include "spec/parameter_table.h"
#include "spec/run_spec.h"
#include "tensor/buffer.h"

namespace stoker::optim {

struct OptimizedParameter {
  std::string name;
  ParameterRole role = ParameterRole::kMatrix;
  TensorView value, grad, copy;  // f32, f32, bf16 (may be empty)
  // A fused matrix is orthogonalised part by part.
};

struct OptimizerSettings {
  OptimizerKind kind = OptimizerKind::kAdamW;
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0.1f, momentum = 0.95f;
};

struct UpdateArguments {
  float learning_rate = 0;
  int64_t step = 1;  // from 1
  float grad_scale = 1;
};

class Optimizer {
 public:
  Optimizer(std::vector<OptimizedParameter> parameters, OptimizerSettings settings);
  static size_t state_bytes(std::span<const ParameterRow> rows, const OptimizerSettings& settings);
  // What Muon works in: the room of the widest of these matrices. 0 for the others.
  static size_t workspace_bytes(std::span<const ParameterRow> rows, const OptimizerSettings& settings,
                                Precision precision);

  void update(ops::Context& context, const UpdateArguments& arguments);
  // Every state tensor with its checkpoint name.
  std::vector<NamedTensor> state() const;

 private:
  struct Slot {
    OptimizedParameter parameter;
    TensorView first, second;  // exp_avg or momentum; exp_avg_sq (AdamW)
  };
  void adamw(ops::Context& context, const Slot& slot, const UpdateArguments& arguments);
  void muon(ops::Context& context, const Slot& slot, const UpdateArguments& arguments);

  OptimizerSettings settings_;
  Buffer memory_;
  Arena workspace_;
  std::vector<Slot> slots_;
};

bool decays(ParameterRole role);
bool uses_muon(ParameterRole role);
OptimizerKind optimizer_from_string(std::string_view name);  // Usage: names the choices

}  // namespace stoker::optim
