#include "train/memory_plan.h"

#include <algorithm>

#include "spec/tensor_share.h"
#include "train/model_share.h"

namespace stoker::train {
namespace {

// Resident memory of `stoker train` on a model of a few kilobytes, less what its rows say: program, oneDNN's compiled kernels,
// thread stacks. Measured: 39 to 60 MB.
constexpr size_t kProgram = 52 << 20;

// Buffers that the tree sum keeps besides the gradient itself: one per level that can be open at once.
int tree_buffers(int virtual_ranks) {
  int levels = 0;
  while ((1 << levels) < virtual_ranks) ++levels;
  return virtual_ranks == 1 ? 0 : levels + 1;
}

}  // namespace

size_t MemoryPlan::total() const {
  size_t sum = 0;
  for (const MemoryRow& r : rows) sum += r.bytes;
  return sum;
}

MemoryPlan memory_plan(const Recipe& r) {
  const ModelSpec share = tensor_share(r.model, {r.layout.tensor, r.layout.tensor - 1});
  const std::vector<ParameterRow> table = parameter_table(share);
  const size_t n = static_cast<size_t>(parameter_count(share));
  MemoryPlan plan;
  plan.rows.push_back({"weights, fp32", n * 4});
  if (r.precision == Precision::kBf16) plan.rows.push_back({"weights, bf16 copy", n * 2});
  plan.rows.push_back({"gradients, fp32", n * 4});
  if (r.virtual_ranks > 1)
    plan.rows.push_back({"gradient tree", static_cast<size_t>(tree_buffers(r.virtual_ranks)) * n * 4});
  if (r.model.tied_embeddings) {
    const int64_t tokens = r.global_batch / r.virtual_ranks * r.sequence_length / r.layout.context;
    plan.rows.push_back(
        {"gradient of lookups", static_cast<size_t>(std::min(tokens, share.vocab) * r.model.hidden) * 4});
  }
  plan.rows.push_back({"optimizer state", optim::Optimizer::state_bytes(table, r.optimizer)});
  plan.rows.push_back(
      {"activations and logits", ModelShare::activation_bytes(r, r.layout, 0, r.virtual_ranks)});
  plan.rows.push_back({"program", kProgram});
  return plan;
}

}  // namespace stoker::train
