#include "ops/cuda/element.cuh"
#include "ops/cuda/kernels.h"

namespace stoker::ops::cuda {
namespace {

constexpr int64_t kMostBlocks = 65536;

__global__ void adamw(AdamWKernel k) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBlock;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < k.count; i += stride) {
    const float g = k.grad[i] * k.grad_scale;
    const float m = k.beta1 * k.m[i] + (1.0f - k.beta1) * g;
    const float v = k.beta2 * k.v[i] + (1.0f - k.beta2) * g * g;
    const float p = k.param[i] * k.decay - k.lr * (m * k.correct1) / (sqrtf(v * k.correct2) + k.eps);
    k.m[i] = m;
    k.v[i] = v;
    k.param[i] = p;
    if (k.copy) store(static_cast<__nv_bfloat16*>(k.copy), i, p);
  }
}

}  // namespace

const char* launch_adamw(const AdamWKernel& k, StreamHandle stream) {
  const int64_t blocks = min((k.count + kBlock - 1) / kBlock, kMostBlocks);
  adamw<<<static_cast<unsigned>(blocks), kBlock, 0, static_cast<cudaStream_t>(stream)>>>(k);
  return launch_error();
}

}  // namespace stoker::ops::cuda
