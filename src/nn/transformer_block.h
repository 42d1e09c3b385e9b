// nn/transformer_block.h
// One pre-norm transformer layer, GPT-2's or Llama's by its ModelSpec:
//   x1 = x + delta;  a = attention(rope(norm1(x1) Wqkv));  x2 = x1 + a Wo;  delta' = act(norm2(x2) Wup) Wdown
// Its output is the pair (x2, delta'): the next layer's norm adds them in the pass it makes anyway.
// Shapes       R = rows * T tokens; x delta [R,D]; weights as spec/parameter_table
// Saved        BlockSaved says what backward reads. Recompute::kNone keeps all; kSelective recomputes the norms' outputs and the
//              activation's product, which cost no matrix product; kFull keeps x1 alone and runs forward again.
//              The recomputed values are the same bits, so the gradients are.
// Backward     takes g = dLoss/d(x2 + delta') and turns it in place into dLoss/d(x + delta); weight gradients are added to.
//              With a BlockStash the gradients of the matrices wait for backward_weights(): the same bits, later
// Shared       with TensorPeers the block has its heads and hidden units only (spec/tensor_share.h); what the output products make is
//              summed, in f32 and rounded once, and so are the input gradients of the others; the weights' gradients are made while
//              those are on their way. With SequencePeers attention is theirs.
//              Gradients of gains over rows that this worker alone has seen are left for the caller to sum (partial_gradient())
#pragma once
#include "nn/parameter_store.h"
#include "nn/peers.h"

namespace stoker::nn {

struct BlockWeights {
  Weight norm1, norm1_bias, qkv, qkv_bias, q_gain, k_gain, out, out_bias, norm2, norm2_bias, up, up_bias,
      down, down_bias;
};
BlockWeights block_weights(const ParameterStore& store, int64_t layer);

// What backward needs of one layer. Tensors that a mode does not keep point at memory shared by all layers.
struct BlockSaved {
  TensorView x1, y1, rstd1, mean1, raw, qk_rstd, qkv, attended, lse, x2, y2, rstd2, mean2, up, active;
};
// Memory that lives only within one layer's pass.
struct BlockScratch {
  TensorView delta;                         // forward's second output
  TensorView dy, dattended, dqkv, dactive;  // backward
  TensorView partial;                       // with TensorPeers: f32, before the sum
  TensorView whole, whole_y;  // rows of all, where they are split: of what is used at once, and later
};

// What backward_weights() needs beyond BlockSaved, so that a pipeline can put it off. Empty: weights at once.
struct BlockStash {
  TensorView g_down, g_out, dqkv;
  explicit operator bool() const { return static_cast<bool>(dqkv); }
};

struct BlockShape {
  int64_t rows = 0, length = 0;
  Dtype dtype = Dtype::kF32;
  Recompute recompute = Recompute::kNone;
  bool training = true;
  int64_t tensor = 1;       // workers that share the width
  bool split_rows = false;  // and the rows between the products
  int64_t tokens() const { return rows * length; }
  int64_t residual_tokens() const { return split_rows ? tokens() / tensor : tokens(); }
};

// Who computes a block together with this worker; null: nobody.
struct BlockPeers {
  TensorPeers* tensor = nullptr;
  SequencePeers* sequence = nullptr;
};

// Whether each of the workers that share a width makes only a part of this gradient although all of them hold the weight.
bool partial_gradient(const ParameterRow& row, bool split_rows);

// Allocates (or, before commit, counts) the saved tensors of `layers` layers for `slots` micro-batches in flight, [slot][layer], and
// the scratch.
std::vector<std::vector<BlockSaved>> take_saved(Arena& arena, const ModelSpec& spec, const BlockShape& shape,
                                                int64_t layers, int slots);
BlockStash take_stash(Arena& arena, const ModelSpec& spec, const BlockShape& shape);
BlockScratch take_scratch(Arena& arena, const ModelSpec& spec, const BlockShape& shape);
// Of a context's scratch: the most that one of the block's matrix products takes.
size_t product_scratch_bytes(const ModelSpec& spec, const BlockShape& shape);

// Where the tokens of this batch stand; the same for every layer.
struct BlockPlace {
  TensorView positions, document_start, rope_table;  // rope_table empty: learned positions
};

class TransformerBlock {
 public:
  TransformerBlock(const ModelSpec& spec, BlockWeights weights, BlockShape shape, BlockPeers peers = {})
      : spec_(spec), w_(weights), shape_(shape), peers_(peers) {}
  // x may be saved by the caller's previous layer; delta may be empty (first layer). Writes saved and scratch.delta.
  void forward(ops::Context& context, TensorView x, TensorView delta, const BlockPlace& place,
               const BlockSaved& saved, const BlockScratch& scratch) const;
  void backward(ops::Context& context, TensorView g, const BlockPlace& place, const BlockSaved& saved,
                const BlockScratch& scratch, const BlockStash& stash = {}) const;
  void backward_weights(ops::Context& context, const BlockSaved& saved, const BlockScratch& scratch,
                        const BlockStash& stash) const;

 private:
  void norm(ops::Context&, const Weight& gain, const Weight& bias, TensorView x, TensorView delta,
            TensorView x_out, TensorView y, TensorView rstd, TensorView mean) const;
  void norm_backward(ops::Context&, const Weight& gain, const Weight& bias, TensorView x, TensorView rstd,
                     TensorView mean, TensorView dy, TensorView g) const;
  void activate(ops::Context&, const BlockSaved&) const;
  void attention_part(ops::Context&, const BlockPlace&, const BlockSaved&, const BlockScratch&) const;
  // Out of the residual stream and back into it, and the gradients of either's input.
  void project(ops::Context&, const Weight&, const Weight& bias, TensorView x, TensorView y,
               const BlockScratch&) const;
  void project_back(ops::Context&, const Weight&, const Weight& bias, TensorView x,
                    const BlockScratch&) const;
  void project_gradient(ops::Context&, const Weight&, TensorView dy, const BlockScratch&,
                        const TensorPeers::Work& beside) const;
  TensorView project_back_gradient(ops::Context&, const Weight&, TensorView dy, TensorView dx,
                                   const BlockScratch&) const;
  void send_rows(TensorView rows, const BlockScratch&) const;
  TensorView await_rows(TensorView rows, const BlockScratch&) const;

  const ModelSpec& spec_;
  BlockWeights w_;
  BlockShape shape_;
  BlockPeers peers_;
};

// y = x W^T + b on flattened rows
void linear(ops::Context& context, const Weight& weight, const Weight& bias, TensorView x, TensorView y);
void linear_backward_input(ops::Context& context, const Weight& weight, TensorView dy, TensorView dx);
void linear_backward_weight(ops::Context& context, const Weight& weight, const Weight& bias, TensorView x,
                            TensorView dy);

}  // namespace stoker::nn
