// ops/embedding.h
// y[r,:] = table[token[r],:] (+ position_table[position[r],:])        and dtable[token[r],:] += dy[r,:]
// Shapes       tokens positions [R] i32; table [V,D] and position_table [P,D] f32|bf16; y dy [R,D]; dtable,
// dposition_table f32 Writes       y overwrite; dtable, dposition_table are added to Determinism  rows of one
// token are added in row order whatever the thread count (each thread owns a range of tokens) Errors Data: a
// token or position outside its table (names row, value, size)
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct EmbeddingForward {
  TensorView tokens, table, y;
  TensorView positions, position_table;  // both or none
};
struct EmbeddingBackward {
  TensorView tokens, dy, dtable;
  TensorView positions, dposition_table;  // both or none
};

void embedding_forward(Context& context, const EmbeddingForward& args);
void embedding_backward(Context& context, const EmbeddingBackward& args);

}  // namespace stoker::ops
