// ops/cpu/vector_table.h
// The row-wise kernels of one instruction set, as pointers: each works on rows (or elements) [begin, end) on
// the calling thread. vector_avx2.cpp and vector_avx512.cpp fill one table each from the same bodies
// (*_body.h); the files named after the ops spread them over threads (rowwise.h).
#pragma once
#include "ops/activation.h"
#include "ops/cross_entropy.h"
#include "ops/norm.h"
#include "ops/rope.h"
#include "ops/update.h"

namespace stoker::ops::cpu {

struct VectorTable {
  void (*norm_forward)(const NormForward&, int64_t begin, int64_t end);
  // dgain, dbias: this block's own sums, overwritten
  void (*norm_backward)(const NormBackward&, int64_t begin, int64_t end, float* dgain, float* dbias);
  void (*rope_forward)(const RopeForward&, int64_t begin, int64_t end);
  void (*rope_backward)(const RopeBackward&, int64_t begin, int64_t end, float* dq_gain, float* dk_gain);
  void (*activation_forward)(const ActivationForward&, int64_t begin, int64_t end);
  void (*activation_backward)(const ActivationBackward&, int64_t begin, int64_t end);
  void (*cross_entropy)(const CrossEntropy&, int64_t begin, int64_t end);
  void (*slice_softmax)(const SliceSoftmax&, int64_t begin, int64_t end);
  void (*slice_gradient)(const SliceGradient&, int64_t begin, int64_t end);
  void (*adamw)(const AdamW&, int64_t begin, int64_t end);
  void (*sgd)(const Sgd&, int64_t begin, int64_t end);
  void (*round_copy)(const RoundCopy&, int64_t begin, int64_t end);
  double (*sum_squares)(const float* x, int64_t count);
  void (*add)(float* y, const float* x, int64_t count);                               // y += x
  void (*add_row)(float* y, const TensorView& x, int64_t row);                        // y += x[row,:]
  void (*column_sums)(const TensorView& x, int64_t begin, int64_t end, float* sums);  // overwritten
};

const VectorTable& vector_avx2();
const VectorTable& vector_avx512();

}  // namespace stoker::ops::cpu
