// ops/cpu/rowwise.h
// Row-wise ops on the CPU, spread over threads: one function per op and instruction set, for the candidate
// lists in rowwise.cpp's ops. Rows are cut into blocks of 64 where a gradient is summed over rows, so that
// the sum's order never depends on threads.
#pragma once
#include "ops/cpu/vector_table.h"
#include "ops/embedding.h"
#include "ops/linear.h"

namespace stoker::ops::cpu {

// The best table this processor can run, or null.
const VectorTable* best_table();

// dbias[n] (+)= sum over rows of dy, in blocks of 64 rows
void bias_gradient(Context& context, const LinearBackwardWeight& args);

}  // namespace stoker::ops::cpu
