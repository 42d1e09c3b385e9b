// nn/lookup_gradient.h
// The gradient that an embedding gets from being looked up, for the tokens of one virtual rank only. A tied embedding gets another
// one from the head; the two are made at the two ends of the model, perhaps by different workers, so they are kept apart and added
// once, when the virtual rank is complete:   grad[token,:] += rows[token,:]
// Rows         distinct tokens in the order in which observe() first saw them: the same wherever the same tokens are observed
// Numbers      f32; the tokens' rows are added in the order of the tokens, from zero
// Memory       min(distinct tokens, V) x D f32, kept from one virtual rank to the next
// Errors       Data: a token outside the vocabulary
#pragma once
#include <span>
#include <vector>

#include "ops/context.h"

namespace stoker::nn {

class LookupGradient {
 public:
  LookupGradient(int64_t vocab, int64_t width) : width_(width), slot_of_(static_cast<size_t>(vocab), -1) {}
  void observe(std::span<const int32_t> tokens);
  // dy [tokens, D] onto the rows of `tokens`, which have been observed; positions as ops/embedding.h.
  void add(ops::Context& context, std::span<const int32_t> tokens, TensorView dy, TensorView positions,
           TensorView dposition_table);
  std::span<float> rows() { return {rows_.data(), tokens_.size() * static_cast<size_t>(width_)}; }
  void flush(TensorView grad);  // into the table's gradient [V, D]; forgets everything
  void clear();

 private:
  int64_t width_;
  std::vector<int32_t> slot_of_, tokens_, slots_;
  std::vector<float> rows_;
};

}  // namespace stoker::nn
