// ops/attention.h
// Causal attention with grouped queries and document masks; never stores the T x T matrix.
//   out[b,t,h,:] = sum_s softmax_s(scale * q[b,t,h,:] . k[b,s,g,:]) v[b,s,g,:],  g = h / (H/K),
//   over keys s with first(b,t) <= s <= t, first = max(document_start[b,t], t - window + 1)
// Shapes       qkv dqkv [B,T,H+2K,Dh] f32|bf16, heads in the order q, k, v; out dout [B,T,H,Dh]; lse [B,H,T] f32 (natural log
//              of the sum of exponentials, after scaling); document_start [B,T] i32, non-decreasing along a row, <= t; empty:
//              0
// Numbers      scores, maxima and sums in f32; probabilities are rounded to the inputs' type before they meet v
// Writes       forward: out, lse. backward: dqkv (overwrite)
// Memory       scratch per thread: forward O((T + 96*512) * Dh-ish), backward O(T*Dh): linear in T
// Determinism  one (b, kv head) is one task; same bits for any thread count
// Cost         forward 4*B*H*Dh*pairs FLOPs, backward 10*B*H*Dh*pairs, pairs = visible (t,s) pairs, about T*T/2
// Source       Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691
#pragma once
#include "ops/context.h"

namespace stoker::ops {

struct AttentionForward {
  TensorView qkv, document_start, out, lse;
  int64_t heads = 0, kv_heads = 0;
  int64_t window = 0;  // 0: none
  float scale = 0;
};
struct AttentionBackward {
  TensorView qkv, document_start, out, lse, dout, dqkv;
  int64_t heads = 0, kv_heads = 0;
  int64_t window = 0;
  float scale = 0;
};

void attention_forward(Context& context, const AttentionForward& args);
void attention_backward(Context& context, const AttentionBackward& args);

}  // namespace stoker::ops
