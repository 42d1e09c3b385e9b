// model/transformer_chunk.h
// A run of layers of a decoder-only model with, at its ends, perhaps the embedding and perhaps the head with its loss: the whole
// model (model/transformer.h) or what one pipeline stage computes. Forward and backward of a micro-batch are separate calls, so
// several micro-batches can be in flight, each in its slot.
//     chunk.input(slot)    <- the chunk before's output       (a chunk without embedding)
//     chunk.forward(batch, slot)      -> output()              (a chunk without head)
//     chunk.gradient()     <- the chunk behind's gradient     (a chunk without head)
//     chunk.backward(batch, slot, scale)  -> gradient(), the loss of a chunk with head
//     chunk.backward_weights(slot)        where split_backward
// Batch        rows x length tokens; targets -1 carry no loss; positions and document_start as data/loader makes them. Every chunk
//              gets the same batch
// Between      x + delta, rounded as the next layer's norm would round it: cutting a model into chunks changes no bit
// Gradients    are added to the store's, micro-batch after micro-batch; those of a tied embedding's lookups wait in lookups() until
//              the virtual rank ends (nn/lookup_gradient.h)
// Peers        a chunk that several workers compute together has the store of its share of the width (spec/tensor_share.h) and its part
//              of the tokens; input(), output() and gradient() are then this worker's rows, loss the sum over its tokens
// Memory       one Arena, planned before it is allocated: memory_bytes() is what the constructor takes
// Determinism  same weights, batch, shape, candidates and threads -> same bits, whatever the slot, the order of slots and recompute
// Errors       Usage: length above max_positions of learned positions; Data: token outside the vocabulary
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "nn/lookup_gradient.h"
#include "nn/transformer_block.h"
#include "nn/vocabulary_slice.h"

namespace stoker {

struct MicroBatch {
  int64_t rows = 0, length = 0;
  std::span<const int32_t> tokens, targets, positions,
      document_start;  // all rows * length; document_start may be empty
};

struct ChunkOptions {
  int64_t rows = 1, length = 0;
  Recompute recompute = Recompute::kNone;
  bool training = true;         // false: loss only, one layer's memory
  int slots = 1;                // micro-batches in flight
  bool split_backward = false;  // weights' gradients in backward_weights()
  // Several workers computing one chunk (nn/peers.h); rows and length are what this worker has.
  int64_t tensor = 1;       // they share its width
  bool split_rows = false;  // and the residual stream's rows
  int64_t vocab = 0;        // of the whole model; 0: as the store's
  int64_t row_length = 0;   // of the whole row, where this worker has a part of its tokens; 0: length
};

// Told when a part of the model is about to be used and when it is done with: a layer by its index, the embedding as -1, the head
// as spec.layers. For whoever brings parameters just in time, takes gradients away, or keeps messages moving.
class PartWatch {
 public:
  enum class Pass { kForward, kBackward };
  virtual ~PartWatch() = default;
  virtual void enter(int64_t part, Pass pass) = 0;
  virtual void leave(int64_t part, Pass pass) = 0;  // kBackward: this micro-batch has added all it adds
};

class TransformerChunk {
 public:
  TransformerChunk(nn::ParameterStore& store, ChunkSpec chunk, ChunkOptions options, ops::Context& context,
                   PartWatch* watch = nullptr, nn::BlockPeers peers = {});
  static size_t memory_bytes(const ModelSpec& spec, Precision precision, const ChunkSpec& chunk,
                             const ChunkOptions& options);
  // Of the context's scratch while it works: the most that one of its matrix products takes.
  static size_t scratch_bytes(const ModelSpec& spec, Precision precision, const ChunkSpec& chunk,
                              const ChunkOptions& options);
  const ChunkSpec& spec() const { return chunk_; }

  TensorView input(int slot) const { return m_.saved[static_cast<size_t>(slot)][0].x1; }
  TensorView output() const { return m_.x_between; }
  TensorView gradient() const { return m_.g; }
  void forward(const MicroBatch& batch, int slot);
  double backward(const MicroBatch& batch, int slot, float grad_scale);
  void backward_weights(int slot);
  double loss(const MicroBatch& batch, int slot);  // after forward(); a chunk with head
  void logits(int slot, TensorView out);           // likewise: f32 [rows * length, V]
  nn::LookupGradient& lookups() { return lookups_; }
  // The tokens whose rows of the embedding this worker has, as lookups() observes them; valid until the next call.
  std::span<const int32_t> looked_up(std::span<const int32_t> tokens);
  bool collects_lookups() const { return model_.tied_embeddings && chunk_.embeds; }

 private:
  struct Memory {
    std::vector<std::vector<nn::BlockSaved>> saved;  // [slot][layer]
    std::vector<std::vector<nn::BlockStash>> stash;
    nn::BlockScratch scratch;
    TensorView x_between, g;
    std::vector<TensorView> x_final;  // per slot
    TensorView y_final, rstd, mean, logits, dlogits, losses;
    TensorView y_head;  // all rows of y_final
  };
  static Memory take_memory(Arena& arena, const ModelSpec& spec, Precision precision, const ChunkSpec& chunk,
                            const ChunkOptions& options);
  nn::BlockPlace place(const MicroBatch& batch) const;
  void enter(int64_t part, PartWatch::Pass pass) const;
  void leave(int64_t part, PartWatch::Pass pass) const;
  void embed(const MicroBatch& batch, int slot);
  void final_norm(int slot);
  double head(const MicroBatch& batch, bool gradients, float grad_scale);
  void embed_backward(const MicroBatch& batch, const nn::BlockPlace& place);
  void slice_backward(const MicroBatch& batch, TensorView positions, TensorView dpositions);

  nn::ParameterStore& store_;
  const ModelSpec& model_;
  ChunkSpec chunk_;
  ChunkOptions options_;
  ops::Context& context_;
  PartWatch* watch_;
  Arena arena_;
  Memory m_;
  std::vector<nn::TransformerBlock> blocks_;
  nn::Weight embedding_, position_, norm_, norm_bias_, head_;
  nn::LookupGradient lookups_;
  nn::BlockPeers peers_;
  std::optional<nn::VocabularySlice> vocabulary_;
  Buffer rope_memory_;
  TensorView rope_table_;
  int fresh_ = -1;  // the slot whose y_final is in memory
};

// Radians per position of each pair of a head, with linear and Llama-3 scaling (the latter: Llama 3.1's published rule).
std::vector<double> rope_frequencies(const ModelSpec& spec);

}  // namespace stoker
