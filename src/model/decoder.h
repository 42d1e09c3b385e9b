// model/decoder.h
// Generates one token at a time with a key-value cache.
// next()        feeds one token at the next position, returns the logits [V] that follow it (valid until the next call)
// Memory        2 * L * capacity * K * Dh elements of the compute type, plus one token's activations
// Numbers       the same ops as training on one row; attention over the cache in f32. Logits agree with Transformer's within rounding
// Errors        Usage: more tokens than capacity or max_positions
#pragma once
#include <span>

#include "nn/transformer_block.h"

namespace stoker {

class Decoder {
 public:
  Decoder(nn::ParameterStore& store, int64_t capacity, ops::Context& context);
  std::span<const float> next(int32_t token);
  void reset() { length_ = 0; }
  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }

 private:
  struct Layer {
    nn::BlockWeights weights;
    TensorView keys, values;  // [capacity, K, Dh]
  };
  void layer(const Layer& layer);
  void norm(const nn::Weight& gain, const nn::Weight& bias, TensorView delta);
  TensorView take(int64_t width, Dtype dtype);

  nn::ParameterStore& store_;
  ModelSpec spec_;
  int64_t capacity_, length_ = 0;
  ops::Context& context_;
  Dtype dtype_;
  Arena arena_;
  std::vector<Layer> layers_;
  TensorView x_, y_, qkv_, raw_, qk_rstd_, attended_, delta_, up_, active_, rstd_, mean_, logits_,
      rope_table_;
};

}  // namespace stoker
