// ops/ref/ref.h
// The plain truth: loops one can read, sums in f64 where that costs nothing to understand. Never tuned, never
// deleted.
#pragma once
#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"
#include "ops/update.h"

namespace stoker::ops::ref {

void linear_forward(Context&, const LinearForward&);
void linear_backward_input(Context&, const LinearBackwardInput&);
void linear_backward_weight(Context&, const LinearBackwardWeight&);
void norm_forward(Context&, const NormForward&);
void norm_backward(Context&, const NormBackward&);
void rope_forward(Context&, const RopeForward&);
void rope_backward(Context&, const RopeBackward&);
void attention_forward(Context&, const AttentionForward&);
void attention_backward(Context&, const AttentionBackward&);
void attention_part_forward(Context&, const AttentionPartForward&);
void attention_part_backward(Context&, const AttentionPartBackward&);
void activation_forward(Context&, const ActivationForward&);
void activation_backward(Context&, const ActivationBackward&);
void embedding_forward(Context&, const EmbeddingForward&);
void embedding_backward(Context&, const EmbeddingBackward&);
void cross_entropy(Context&, const CrossEntropy&);
void slice_softmax(Context&, const SliceSoftmax&);
void slice_gradient(Context&, const SliceGradient&);
void adamw(Context&, const AdamW&);
void sgd(Context&, const Sgd&);
void add_into(Context&, const AddInto&);
void sum_squares(Context&, const SumSquares&);
void round_copy(Context&, const RoundCopy&);

}  // namespace stoker::ops::ref
