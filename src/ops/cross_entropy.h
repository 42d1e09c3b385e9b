// ops/cross_entropy.h
// Softmax cross-entropy of some rows of logits and its gradient, one pass in cache per row.
//   loss[r] = logsumexp(logits[r,:]) - logits[r,target[r]]         dlogits[r,:] = (softmax(logits[r,:]) -
//   onehot) * scale
// Shapes    logits [R,V] f32; targets [R] i32, -1: no loss, zero gradient; loss [R] f32; dlogits [R,V]
// f32|bf16, may be logits; empty:
//           no gradient wanted
// Numbers   maxima and exponentials f32, the sum over lanes f32 then f64
// Memory    the caller hands over a slice of rows at a time: a batch's logits never exist at once
// Errors    Data: a target outside [-1, V)
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct CrossEntropy {
  TensorView logits, targets, loss, dlogits;
  float scale = 1;
};

void cross_entropy(Context& context, const CrossEntropy& args);

}  // namespace stoker::ops
