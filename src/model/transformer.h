// model/transformer.h
// A decoder-only language model for training and scoring: embedding, blocks, final norm, head with its loss.
// Batch        rows x length tokens; targets -1 carry no loss; positions and document_start as data/loader makes them
// Loss         sum over targets of cross-entropy in nats (f64 over rows in order). forward_backward adds
//              grad_scale * dLoss/dw to every weight's gradient.
// Memory       one Arena, planned before it is allocated: memory_bytes() is what the constructor will take. The head works on
//              slices of tokens, so logits of at most 128 MB exist at a time
// Determinism  same weights, batch, shape, candidates and threads -> same bits, whatever ran before; recompute mode included
// Errors       Usage: length above max_positions of learned positions; Data: token outside the vocabulary
#pragma once
#include <span>
#include <vector>

#include "nn/transformer_block.h"

namespace stoker {

struct MicroBatch {
  int64_t rows = 0, length = 0;
  std::span<const int32_t> tokens, targets, positions,
      document_start;  // all rows * length; document_start may be empty
};

struct TransformerOptions {
  int64_t rows = 1, length = 0;
  Recompute recompute = Recompute::kNone;
  bool training = true;  // false: loss only, one layer's memory
};

class Transformer {
 public:
  Transformer(nn::ParameterStore& store, TransformerOptions options, ops::Context& context);
  static size_t memory_bytes(const ModelSpec& spec, Precision precision, const TransformerOptions& options);

  double forward_backward(const MicroBatch& batch, float grad_scale);
  double loss(const MicroBatch& batch);
  // f32 [rows * length, V]; for tests and small models: all logits at once.
  void logits(const MicroBatch& batch, TensorView out);

 private:
  struct Memory {
    std::vector<nn::BlockSaved> saved;
    nn::BlockScratch scratch;
    TensorView x_final, y_final, rstd, mean, g, logits, dlogits, losses;
  };
  static Memory take_memory(Arena& arena, const ModelSpec& spec, Precision precision,
                            const TransformerOptions& options);
  static int64_t head_rows(const ModelSpec& spec, int64_t tokens);

  nn::BlockPlace place(const MicroBatch& batch) const;
  void embed(const MicroBatch& batch);
  void run_blocks(const nn::BlockPlace& place);
  void final_norm();
  double head(const MicroBatch& batch, bool gradients, float grad_scale);

  nn::ParameterStore& store_;
  ModelSpec spec_;
  TransformerOptions options_;
  ops::Context& context_;
  Arena arena_;
  Memory m_;
  std::vector<nn::TransformerBlock> blocks_;
  nn::Weight embedding_, position_, norm_, norm_bias_, head_;
  Buffer rope_memory_;
  TensorView rope_table_;
};

// Radians per position of each pair of a head, with linear and Llama-3 scaling (the latter: Llama 3.1's published rule).
std::vector<double> rope_frequencies(const ModelSpec& spec);

}  // namespace stoker
