// ops/cuda/element.cuh
// Loads and stores of either float type as f32, and the block-wide sum with one fixed tree.
#pragma once
#include <cuda_bf16.h>

namespace stoker::ops::cuda {

__device__ inline float load(const float* p, int64_t i) { return p[i]; }
__device__ inline float load(const __nv_bfloat16* p, int64_t i) { return __bfloat162float(p[i]); }
__device__ inline void store(float* p, int64_t i, float v) { p[i] = v; }
__device__ inline void store(__nv_bfloat16* p, int64_t i, float v) { p[i] = __float2bfloat16_rn(v); }

constexpr int kBlock = 256;

// Sum over the kBlock threads of a block, for all of them. Every thread of the block must call it.
__device__ inline float block_sum(float value) {
  __shared__ float warp_sums[kBlock / 32];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();  // an earlier call's readers are done
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < kBlock / 32; ++w) sum += warp_sums[w];
  return sum;
}

inline const char* launch_error() {
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace stoker::ops::cuda
