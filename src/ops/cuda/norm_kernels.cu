// One block per row: a row fits in cache, so its second and third reading cost little.
#include "ops/cuda/element.cuh"
#include "ops/cuda/kernels.h"

namespace stoker::ops::cuda {
namespace {

template <typename T>
__global__ void norm_forward(NormForwardKernel k) {
  const int64_t row = blockIdx.x, at = row * k.columns;
  const T* x = static_cast<const T*>(k.x);
  if (k.delta) {
    T* out = static_cast<T*>(k.x_out);
    for (int64_t i = threadIdx.x; i < k.columns; i += kBlock)
      store(out, at + i, load(x, at + i) + load(static_cast<const T*>(k.delta), at + i));
    x = out;  // each thread reads back only what it wrote itself
  }
  const float scale = 1.0f / static_cast<float>(k.columns);
  float mean = 0;
  if (k.layer) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < k.columns; i += kBlock) sum += load(x, at + i);
    mean = block_sum(sum) * scale;
  }
  float squares = 0;
  for (int64_t i = threadIdx.x; i < k.columns; i += kBlock) {
    const float centred = load(x, at + i) - mean;
    squares += centred * centred;
  }
  const float rstd = 1.0f / sqrtf(block_sum(squares) * scale + k.eps);
  for (int64_t i = threadIdx.x; i < k.columns; i += kBlock) {
    const float y = (load(x, at + i) - mean) * rstd * k.gain[i] + (k.bias ? k.bias[i] : 0.0f);
    store(static_cast<T*>(k.y), at + i, y);
  }
  if (threadIdx.x == 0) {
    k.rstd[row] = rstd;
    if (k.layer) k.mean[row] = mean;
  }
}

template <typename T>
__global__ void norm_backward_input(NormBackwardKernel k) {
  const int64_t row = blockIdx.x, at = row * k.columns;
  const T *x = static_cast<const T*>(k.x), *dy = static_cast<const T*>(k.dy);
  const float rstd = k.rstd[row], mean = k.layer ? k.mean[row] : 0.0f;
  float sum_g = 0, sum_gx = 0;  // of dy*gain, and of dy*gain*xhat
  for (int64_t i = threadIdx.x; i < k.columns; i += kBlock) {
    const float g = load(dy, at + i) * k.gain[i];
    sum_g += g;
    sum_gx += g * (load(x, at + i) - mean) * rstd;
  }
  const float scale = 1.0f / static_cast<float>(k.columns);
  const float mean_g = k.layer ? block_sum(sum_g) * scale : 0.0f;
  const float mean_gx = block_sum(sum_gx) * scale;
  T* dx = static_cast<T*>(k.dx);
  for (int64_t i = threadIdx.x; i < k.columns; i += kBlock) {
    const float xhat = (load(x, at + i) - mean) * rstd;
    float value = rstd * (load(dy, at + i) * k.gain[i] - mean_g - xhat * mean_gx);
    if (k.add_dx) value += load(dx, at + i);
    store(dx, at + i, value);
  }
}

// One thread per column and block of rows: neighbouring threads read neighbouring columns.
template <typename T>
__global__ void norm_backward_gain(NormBackwardKernel k) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (column >= k.columns) return;
  const int64_t begin = blockIdx.y * kRowsPerPartial, end = min(begin + kRowsPerPartial, k.rows);
  const T *x = static_cast<const T*>(k.x), *dy = static_cast<const T*>(k.dy);
  float gain = 0, bias = 0;
  for (int64_t r = begin; r < end; ++r) {
    const float d = load(dy, r * k.columns + column);
    gain += d * (load(x, r * k.columns + column) - (k.layer ? k.mean[r] : 0.0f)) * k.rstd[r];
    bias += d;
  }
  k.partial_gain[blockIdx.y * k.columns + column] = gain;
  if (k.partial_bias) k.partial_bias[blockIdx.y * k.columns + column] = bias;
}

template <typename T>
__global__ void column_partials(const T* dy, float* partial, int64_t rows, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (column >= columns) return;
  const int64_t begin = blockIdx.y * kRowsPerPartial, end = min(begin + kRowsPerPartial, rows);
  float sum = 0;
  for (int64_t r = begin; r < end; ++r) sum += load(dy, r * columns + column);
  partial[blockIdx.y * columns + column] = sum;
}

__global__ void fold_partials(const float* partial, float* y, int64_t blocks, int64_t columns, bool add) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (column >= columns) return;
  float sum = add ? y[column] : 0.0f;
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b * columns + column];
  y[column] = sum;
}

template <typename T>
__global__ void add_bias(const float* sum, const float* bias, T* y, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kBlock + threadIdx.x;
  if (column >= columns) return;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * columns + column;
  store(y, at, sum[at] + bias[column]);
}

unsigned column_blocks(int64_t columns) { return static_cast<unsigned>((columns + kBlock - 1) / kBlock); }
unsigned row_blocks(int64_t rows) {
  return static_cast<unsigned>((rows + kRowsPerPartial - 1) / kRowsPerPartial);
}
cudaStream_t handle(StreamHandle stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

const char* launch_norm_forward(const NormForwardKernel& k, StreamHandle stream) {
  const unsigned rows = static_cast<unsigned>(k.rows);
  if (k.bf16) norm_forward<__nv_bfloat16><<<rows, kBlock, 0, handle(stream)>>>(k);
  else norm_forward<float><<<rows, kBlock, 0, handle(stream)>>>(k);
  return launch_error();
}

const char* launch_norm_backward(const NormBackwardKernel& k, StreamHandle stream) {
  const unsigned rows = static_cast<unsigned>(k.rows);
  const dim3 grid(column_blocks(k.columns), row_blocks(k.rows));
  // The gain's gradient first: dx may be the memory that dy is in.
  if (k.bf16) {
    norm_backward_gain<__nv_bfloat16><<<grid, kBlock, 0, handle(stream)>>>(k);
    norm_backward_input<__nv_bfloat16><<<rows, kBlock, 0, handle(stream)>>>(k);
  } else {
    norm_backward_gain<float><<<grid, kBlock, 0, handle(stream)>>>(k);
    norm_backward_input<float><<<rows, kBlock, 0, handle(stream)>>>(k);
  }
  return launch_error();
}

const char* launch_column_partials(const void* dy, float* partial, int64_t rows, int64_t columns, bool bf16,
                                   StreamHandle stream) {
  const dim3 grid(column_blocks(columns), row_blocks(rows));
  if (bf16)
    column_partials<<<grid, kBlock, 0, handle(stream)>>>(static_cast<const __nv_bfloat16*>(dy), partial, rows,
                                                         columns);
  else
    column_partials<<<grid, kBlock, 0, handle(stream)>>>(static_cast<const float*>(dy), partial, rows,
                                                         columns);
  return launch_error();
}

const char* launch_fold_partials(const float* partial, float* y, int64_t blocks, int64_t columns, bool add,
                                 StreamHandle stream) {
  fold_partials<<<column_blocks(columns), kBlock, 0, handle(stream)>>>(partial, y, blocks, columns, add);
  return launch_error();
}

const char* launch_add_bias(const float* sum, const float* bias, void* y, int64_t rows, int64_t columns,
                            bool bf16, StreamHandle stream) {
  const dim3 grid(static_cast<unsigned>(rows), column_blocks(columns));
  if (bf16) add_bias<<<grid, kBlock, 0, handle(stream)>>>(sum, bias, static_cast<__nv_bfloat16*>(y), columns);
  else add_bias<<<grid, kBlock, 0, handle(stream)>>>(sum, bias, static_cast<float*>(y), columns);
  return launch_error();
}

}  // namespace stoker::ops::cuda
