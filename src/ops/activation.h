// ops/activation.h
// SwiGLU   y[r,f] = silu(x[r,f]) * x[r,F+f]        x holds gate and up side by side
// GELU     y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))        the tanh form
// Shapes   SwiGLU: x dx [R,2F], y dy [R,F]; GELU: x dx y dy [R,F]. f32|bf16
// Writes   overwrite. dx may be x itself
// Numbers  computed in f32, rounded once
// Source   Shazeer 2020, arXiv:2002.05202; Hendrycks & Gimpel 2016, arXiv:1606.08415
#pragma once
#include "ops/context.h"

namespace stoker::ops {

enum class ActivationForm { kSwiGlu, kGelu };

struct ActivationForward {
  ActivationForm form = ActivationForm::kSwiGlu;
  TensorView x, y;
};
struct ActivationBackward {
  ActivationForm form = ActivationForm::kSwiGlu;
  TensorView x, dy, dx;
};

void activation_forward(Context& context, const ActivationForward& args);
void activation_backward(Context& context, const ActivationBackward& args);

}  // namespace stoker::ops
