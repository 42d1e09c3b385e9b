// ops/norm.h
// RMSNorm      y[r,:] = x[r,:] * rstd[r] * gain,  rstd = 1 / sqrt(mean(x^2) + eps)
// LayerNorm    y[r,:] = (x[r,:] - mean[r]) * rstd[r] * gain + bias
// Residual     with `delta` the input is x + delta, rounded to x's type and written to x_out (which may be x): the
//              addition costs no extra pass over memory. Backward sees x_out as its x.
// Shapes       x delta x_out y dx dy [R,D] f32|bf16; gain bias dgain dbias [D] f32; rstd mean [R] f32
// Numbers      sums in f32; variance from centred values; NaN and Inf pass through
// Writes       forward: y, rstd, mean, x_out. backward: dx as dx_accumulate says; dgain, dbias are added to
// Determinism  rows are independent; dgain sums blocks of 64 rows, then the blocks in order: same bits for any thread
//              count
// Cost         forward 2 (with delta 4), backward 3-4 passes over R*D
// Errors       Internal: shapes or types disagree
// Source       Zhang & Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450
#pragma once
#include "ops/context.h"

namespace stoker::ops {

enum class NormForm { kRms, kLayer };

struct NormForward {
  NormForm form = NormForm::kRms;
  TensorView x, delta, x_out;  // delta and x_out together, or both empty
  TensorView gain, bias;       // bias: LayerNorm only
  TensorView y, rstd, mean;    // mean: LayerNorm only
  float eps = 1e-5f;
};
struct NormBackward {
  NormForm form = NormForm::kRms;
  TensorView x, gain, rstd, mean, dy, dx, dgain, dbias;
  Accumulate dx_accumulate = Accumulate::kOverwrite;
};

void norm_forward(Context& context, const NormForward& args);
void norm_backward(Context& context, const NormBackward& args);

}  // namespace stoker::ops
