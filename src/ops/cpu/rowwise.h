// ops/cpu/rowwise.h
// What the row-wise ops of this folder share: kernels of an instruction set (vector_table.h) spread over threads, sums over rows,
// and the list of candidates of an op that has one kernel per instruction set.
// Determinism   where rows are summed they are cut into blocks of 64, folded in order: the order never depends on threads
#pragma once
#include <algorithm>
#include <array>

#include "base/cpu_features.h"
#include "base/threads.h"
#include "ops/cpu/vector_table.h"
#include "ops/linear.h"

namespace stoker::ops::cpu {

using Table = const VectorTable& (*)();

// The best table this processor can run, or null.
const VectorTable* best_table();

constexpr int64_t kRowBlock = 64;
inline int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Calls body(begin, end, partial) per block of rows; partial has `width` floats of its own in scratch. Returns scratch.
template <typename Body>
float* row_blocks(Context& context, int64_t rows, int64_t width, Body body) {
  const int64_t n = blocks(rows, kRowBlock);
  float* partial = static_cast<float*>(context.scratch(static_cast<size_t>(n * width) * sizeof(float)));
  parallel_for(
      n, [&](int64_t b) { body(b * kRowBlock, std::min(rows, (b + 1) * kRowBlock), partial + b * width); });
  return partial;
}

// y[i] += sum over the blocks of `rows` rows, in order, of partial[block * stride + offset + i]
void fold(const VectorTable& table, const float* partial, int64_t rows, int64_t stride, int64_t offset,
          const TensorView& y);

// dbias[n] (+)= sum over rows of dy
void bias_gradient(Context& context, const LinearBackwardWeight& args);

// Data: names the first index outside [low, size). Only where the host can read them: a kernel has to look for itself.
void check_indices(const char* what, const TensorView& indices, int64_t low, int64_t size);

template <typename Args, Isa isa>
std::string needs(const Args&) {
  if (cpu_has(isa)) return {};
  return isa == Isa::kAvx512 ? "this processor has no AVX-512" : "this processor has no AVX2";
}

template <typename Args>
using Run = void (*)(Context&, const Args&);

template <typename Args>
constexpr std::array<Candidate<Args>, 3> candidates(Run<Args> avx512, Run<Args> avx2, Run<Args> ref) {
  return {{{"avx512", needs<Args, Isa::kAvx512>, avx512},
           {"avx2", needs<Args, Isa::kAvx2>, avx2},
           {"ref", nullptr, ref}}};
}

}  // namespace stoker::ops::cpu
