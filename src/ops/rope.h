// ops/rope.h
// Rotary positions on the query and key heads of a fused projection, in place, with Qwen3's per-head RMSNorm
// before it if asked.
//   (a,b) = (x[i], x[i + Dh/2])  ->  (a cos - b sin, b cos + a sin),   angle = position * frequency[i]
// Shapes       qkv [R, H+2K, Dh] f32|bf16, heads in the order q, k, v (v is untouched); positions [R] i32
//              table [P,Dh] f32: row p holds Dh/2 cosines, then Dh/2 sines, of position p (fill_rope_table)
//              q_gain k_gain dq_gain dk_gain [Dh] f32; raw [R, H+2K, Dh]; rstd [R, H+K] f32
// Numbers      angles, cosines and sines in f64, rounded to f32 in the table; rotation in f32
// Backward     rotates by the opposite angle; with gains also undoes the norm, reading `raw` (qkv as it came from the projection)
// Writes       forward: qkv, and with gains raw and rstd. backward: dqkv in place; dq_gain, dk_gain are added to
// Determinism  as norm.h
// Source       Su et al. 2021, arXiv:2104.09864; pairing as in Llama's Hugging Face files (first half with second half)
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct RopeForward {
  TensorView qkv, positions, table;
  int64_t heads = 0, kv_heads = 0;
  TensorView q_gain, k_gain, raw, rstd;  // all or none
  float eps = 1e-6f;
};
struct RopeBackward {
  TensorView dqkv, positions, table;
  int64_t heads = 0, kv_heads = 0;
  TensorView q_gain, k_gain, raw, rstd, dq_gain, dk_gain;  // all or none
};

// Every row of `table` from frequency[i], radians per position, i < Dh/2.
void fill_rope_table(std::span<const double> frequency, TensorView table);

void rope_forward(Context& context, const RopeForward& args);
void rope_backward(Context& context, const RopeBackward& args);

}  // namespace stoker::ops
