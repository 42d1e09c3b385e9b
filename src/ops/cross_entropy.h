// ops/cross_entropy.h
// Softmax cross-entropy of some rows of logits and its gradient, one pass in cache per row.
//   loss[r] = logsumexp(logits[r,:]) - logits[r,target[r]]
//   dlogits[r,:] = (softmax(logits[r,:]) - onehot) * scale
// Shapes    logits [R,V] f32; targets [R] i32, -1: no loss, zero gradient; loss [R] f32; dlogits [R,V]
//           f32|bf16, may be logits; empty: no gradient wanted
// Numbers   maxima and exponentials f32, the sum over lanes f32 then f64
// Memory    the caller hands over a slice of rows at a time: a batch's logits never exist at once
// Errors    Data: a target outside [-1, V)
//
// A slice of the vocabulary, where workers share it (parallel/tensor_peers.h):
//   slice_softmax    top[r] = max logits[r,:];  logits[r,:] = exp(logits[r,:] - top[r]), whose sum is sum[r];  target_logit[r] as it was
//   slice_gradient   dlogits[r,:] = logits[r,:] * factor[r] - onehot * scale,  factor = scale * exp(top - top of all) / sum of all
// Shapes    targets [R] i32, relative to the slice; -1: elsewhere or no loss; top target_logit factor [R] f32; sum [R] f64
// Numbers   as cross_entropy, but that e^(top - top of all) is one more rounding
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct CrossEntropy {
  TensorView logits, targets, loss, dlogits;
  float scale = 1;
};

struct SliceSoftmax {
  TensorView logits, targets, top, sum, target_logit;  // target_logit: 0 where targets is -1
};
struct SliceGradient {
  TensorView logits, targets, factor,
      dlogits;  // factor 0 where there is no loss; dlogits may be logits
  float scale = 1;
};

void cross_entropy(Context& context, const CrossEntropy& args);
void slice_softmax(Context& context, const SliceSoftmax& args);
void slice_gradient(Context& context, const SliceGradient& args);

}  // namespace stoker::ops
