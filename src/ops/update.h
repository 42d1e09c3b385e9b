// ops/update.h
// Element-wise parameter updates and sums over parameters.
// AdamW     m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p = p (1 - lr wd) - lr (m / (1-b1^t)) / (sqrt(v /
// (1-b2^t)) + eps) SGD       m = momentum m + g;   p = p (1 - lr wd) - lr m           (m empty: momentum 0)
// Shapes    all [n] f32; copy [n] bf16 or empty: p rounded for the next forward pass. g is first multiplied
// by grad_scale SumSquares  f64 over blocks of 65,536 elements, blocks added in order: same bits for any
// thread count or split at blocks AddInto   y += x (the canonical tree's fold), Scale y *= a Source
// Loshchilov & Hutter 2017, arXiv:1711.05101
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct AdamW {
  TensorView param, grad, m, v, copy;
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0, grad_scale = 1;
  int64_t step = 1;  // t, counted from 1
};
struct Sgd {
  TensorView param, grad, m, copy;
  float lr = 0, momentum = 0, weight_decay = 0, grad_scale = 1;
};
struct AddInto {
  TensorView y, x;
};
struct SumSquares {
  TensorView x;
  double* out = nullptr;
  double* blocks = nullptr;  // also the sum of each block, where wanted
};
inline constexpr int64_t kSumBlock = 65536;
struct RoundCopy {  // bf16 copy of f32 values
  TensorView source, copy;
};

void adamw(Context& context, const AdamW& args);
void sgd(Context& context, const Sgd& args);
void add_into(Context& context, const AddInto& args);
double sum_squares(Context& context, TensorView x);
// The sums of the blocks of kSumBlock elements (the last may be short) into `blocks`.
void sum_squares_blocks(Context& context, TensorView x, double* blocks);
void round_copy(Context& context, const RoundCopy& args);

}  // namespace stoker::ops
