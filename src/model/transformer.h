// model/transformer.h
// A whole decoder-only language model for training and scoring: the chunk (model/transformer_chunk.h) of all layers.
// Loss         sum over targets of cross-entropy in nats (f64 over rows in order). forward_backward adds grad_scale * dLoss/dw to
//              every weight's gradient; of a tied embedding the lookups' part is added by finish_gradients()
// Memory       memory_bytes() is what the constructor will take. The head works on slices of tokens, so logits of at most 128 MB
//              exist at a time
// Errors       as TransformerChunk
#pragma once
#include "model/transformer_chunk.h"

namespace stoker {

struct TransformerOptions {
  int64_t rows = 1, length = 0;
  Recompute recompute = Recompute::kNone;
  bool training = true;  // false: loss only, one layer's memory
};

// Whatever can score a micro-batch: a model in one piece, or one spread over workers.
class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual double loss(const MicroBatch& batch) = 0;
};

class Transformer final : public Scorer {
 public:
  Transformer(nn::ParameterStore& store, TransformerOptions options, ops::Context& context)
      : store_(store),
        chunk_(store, whole_model(store.spec()),
               {options.rows, options.length, options.recompute, options.training, 1, false}, context) {}
  static size_t memory_bytes(const ModelSpec& spec, Precision precision, const TransformerOptions& o) {
    return TransformerChunk::memory_bytes(spec, precision, whole_model(spec),
                                          {o.rows, o.length, o.recompute, o.training, 1, false});
  }

  double forward_backward(const MicroBatch& batch, float grad_scale) {
    chunk_.forward(batch, 0);
    return chunk_.backward(batch, 0, grad_scale);
  }
  // After the last micro-batch of a virtual rank, before its gradients are read.
  void finish_gradients();
  double loss(const MicroBatch& batch) override {
    chunk_.forward(batch, 0);
    return chunk_.loss(batch, 0);
  }
  // f32 [rows * length, V]; for tests and small models: all logits at once.
  void logits(const MicroBatch& batch, TensorView out) {
    chunk_.forward(batch, 0);
    chunk_.logits(0, out);
  }

 private:
  nn::ParameterStore& store_;
  TransformerChunk chunk_;
};

}  // namespace stoker
