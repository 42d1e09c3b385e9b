// ops/linear.h
// y[m,n] = sum_k x[m,k] * weight[n,k] + bias[n]   and its two gradients.
// Shapes       x dx [M,K]; weight dweight [N,K]; y dy [M,N]; bias dbias [N] (leading dimensions are flattened into M)
// Types        x, weight, y: all f32, or all bf16 (y may then also be f32); dweight, bias, dbias always f32
// Numbers      products summed in f32. dbias: f32 sums over fixed blocks of rows
// Writes       y, dx: overwrite, or dx as `accumulate` says; dweight, dbias as `accumulate` says
// Determinism  same candidate, shape, threads -> same bits
// Cost         2*M*N*K FLOPs each
// Memory       scratch of the context: a long product takes its second operand in a layout of its own (linear_scratch_bytes)
// Errors       Internal: shapes or types disagree (a model's shapes are validated before)
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct LinearForward {
  TensorView x, weight, bias, y;  // bias may be empty
};
struct LinearBackwardInput {
  TensorView dy, weight, dx;
  Accumulate accumulate = Accumulate::kOverwrite;
};
struct LinearBackwardWeight {
  TensorView dy, x, dweight, dbias;  // dbias may be empty
  Accumulate accumulate = Accumulate::kAdd;
};

void linear_forward(Context& context, const LinearForward& args);
void linear_backward_input(Context& context, const LinearBackwardInput& args);
void linear_backward_weight(Context& context, const LinearBackwardWeight& args);

// The most that the three take for M, N, K of operands of that type.
size_t linear_scratch_bytes(int64_t m, int64_t n, int64_t k, Dtype dtype);

}  // namespace stoker::ops
