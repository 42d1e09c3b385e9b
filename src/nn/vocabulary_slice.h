// nn/vocabulary_slice.h
// Embedding and loss of a worker that has a part of the vocabulary (spec/tensor_share.h), with its peers.
// Lookup       every worker looks up the tokens it has; the sum of one row and zeros is exact, so the result is a single worker's
// Loss         each row's maximum, sum of exponentials and target's logit travel, three numbers a worker; logits never do. Merged in
//              f64 in the order of the workers: the same bits on all
// Shapes       tokens targets [R]; partial [R,D] f32; logits [rows, V of this worker] f32
#pragma once
#include <span>
#include <vector>

#include "nn/parameter_store.h"
#include "nn/peers.h"

namespace stoker::nn {

class VocabularySlice {
 public:
  // vocab: of the whole model
  VocabularySlice(int64_t vocab, TensorPeers& peers);

  // out: the rows of the residual stream. positions and table: learned ones, or empty.
  void look_up(std::span<const int32_t> tokens, const Weight& embedding, std::span<const int32_t> positions,
               const Weight& position_table, TensorView partial, TensorView out);
  // The tokens that this worker has, counted from its first, in their order.
  std::span<const int32_t> own_tokens(std::span<const int32_t> tokens);
  // Their rows of dy (all rows [R,D]), moved together at its beginning; call after own_tokens.
  TensorView own_rows(std::span<const int32_t> tokens, TensorView dy) const;

  // Losses of the rows and, unless dlogits is empty, the gradient; turns logits into exponentials.
  void loss(ops::Context& context, TensorView logits, std::span<const int32_t> targets, TensorView losses,
            TensorView dlogits, float scale);
  // Bytes that a loss over so many rows needs.
  static size_t memory_bytes(int64_t rows, int64_t workers);

 private:
  bool mine(int32_t token) const { return token >= begin_ && token < end_; }
  TensorPeers& peers_;
  int64_t vocab_, begin_, end_;
  std::vector<int32_t> own_, targets_;
  std::vector<float> top_, target_logit_, factor_;
  std::vector<double> sum_, sent_, received_;
};

}  // namespace stoker::nn
