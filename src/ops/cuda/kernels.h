// ops/cuda/kernels.h
// What the .cu files offer to the C++ around them: plain numbers in, a kernel on a stream. nvcc sees no other
// header of ours. Pointers are device memory; `bf16` says what the void pointers hold (f32 otherwise).
// Returns       null, or the CUDA run time's words when the launch failed
// Determinism   fixed partitions and fixed reduction trees: same arguments, same device, same bits
#pragma once
#include <cstdint>

namespace stoker::ops::cuda {

using StreamHandle = void*;  // cudaStream_t

constexpr int64_t kRowsPerPartial = 64;  // rows that one partial sum of a column covers

struct NormForwardKernel {
  const void *x, *delta;  // delta may be null
  void *x_out, *y;
  const float *gain, *bias;  // bias may be null
  float *rstd, *mean;        // mean: LayerNorm only
  int64_t rows, columns;
  float eps;
  bool layer, bf16;
};
const char* launch_norm_forward(const NormForwardKernel& k, StreamHandle stream);

struct NormBackwardKernel {
  const void *x, *dy;
  void* dx;
  const float *gain, *rstd, *mean;
  float *partial_gain, *partial_bias;  // [ceil(rows / kRowsPerPartial), columns]; bias may be null
  int64_t rows, columns;
  bool layer, add_dx, bf16;
};
const char* launch_norm_backward(const NormBackwardKernel& k, StreamHandle stream);

// partial[b, n] = sum of dy[r, n] over the rows of block b
const char* launch_column_partials(const void* dy, float* partial, int64_t rows, int64_t columns, bool bf16,
                                   StreamHandle stream);
// y[n] (+)= sum over blocks, in order, of partial[b, n]
const char* launch_fold_partials(const float* partial, float* y, int64_t blocks, int64_t columns, bool add,
                                 StreamHandle stream);

// y[m, n] = round(sum[m, n] + bias[n])
const char* launch_add_bias(const float* sum, const float* bias, void* y, int64_t rows, int64_t columns,
                            bool bf16, StreamHandle stream);

struct AdamWKernel {
  float *param, *m, *v;
  const float* grad;
  void* copy;  // bf16, may be null
  int64_t count;
  float lr, beta1, beta2, eps, decay, grad_scale;  // decay = 1 - lr * weight_decay
  float correct1, correct2;                        // 1 / (1 - beta^t)
};
const char* launch_adamw(const AdamWKernel& k, StreamHandle stream);

}  // namespace stoker::ops::cuda
