// spec/parameter_table.h
// The one table of a model's parameters: nn allocates by walking it, optim and plan sum it, checkpoints name by
// it.
// Order      is the order in memory: tensors that one matrix product uses together (q,k,v; gate,up) are adjacent,
//            so the fused [q+k+v, D] matrix is a view and the file still holds the ecosystem's separate tensors.
// Names      are those of Hugging Face for the family ("model.layers.0.self_attn.q_proj.weight").
// Shapes     of matrices are [out, in]. `stored_transposed`: the family's files hold [in, out] (GPT-2's Conv1D).
// Tied head  has no row of its own: the head uses the embedding.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spec/model_spec.h"

namespace stoker {

enum class ParameterRole { kEmbedding, kPosition, kMatrix, kHead, kNormGain, kBias };

struct ParameterRow {
  std::string name;
  std::vector<int64_t> shape;
  ParameterRole role = ParameterRole::kMatrix;
  int64_t layer = -1;            // -1: outside the layers
  bool residual_output = false;  // writes into the residual stream: initialised with std / sqrt(2 L) (GPT-2)
  bool stored_transposed = false;
  int64_t count() const;
};

std::vector<ParameterRow> parameter_table(const ModelSpec& spec);  // dense models; validates
int64_t parameter_count(const ModelSpec& spec);         // also mixture of experts: all experts counted
int64_t active_parameter_count(const ModelSpec& spec);  // those that one token uses

}  // namespace stoker
