// ops/cuda/candidates.h
// The CUDA side of an op's candidate list. An op whose tensors are on a CUDA device asks here; which file answers is the
// build's choice: residents.cpp (kernels and cuBLASLt) or no_cuda.cpp ("built without CUDA").
// Streams      the Context's; calls return before the device is done
// Scratch      device memory kept in the Context's cache, grown when a call needs more
// Determinism  fixed partitions; cuBLASLt is not allowed to sum in place by atomics. Same device, shape: same bits
// Residents    linear (all three products), RMSNorm and LayerNorm forward and backward, AdamW
#pragma once
#include <span>

#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/update.h"

namespace stoker::ops::cuda {

std::span<const Candidate<LinearForward>> linear_forward_candidates();
std::span<const Candidate<LinearBackwardInput>> linear_backward_input_candidates();
std::span<const Candidate<LinearBackwardWeight>> linear_backward_weight_candidates();
std::span<const Candidate<NormForward>> norm_forward_candidates();
std::span<const Candidate<NormBackward>> norm_backward_candidates();
std::span<const Candidate<AdamW>> adamw_candidates();

}  // namespace stoker::ops::cuda
