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

// A stretch of a row's queries over a stretch of its keys, which may come from elsewhere: the parts that attention over a long row
// is put together from (parallel/ring_attention.h).
//   Shapes      qkv [B,T,H+2K,Dh]: queries are rows [query, query + queries); kv [B,S,2K,Dh], keys then values: rows [key, key + keys);
//               document_start [B,T] in positions of the whole row; out dout [B,T,H,Dh], lse [B,H,T], of the same rows as the queries
//   Positions   of the first query and the first key in the whole row; the mask is the one above
//   Forward     merges: out (f32) and lse become those over the keys so far and these. Begin with 0 and -infinity
//   Backward    dq [B,T,H,Dh] and dkv [B,S,2K,Dh], f32, are added to; out and lse are those over all keys
struct AttentionStretch {
  TensorView qkv, kv, document_start;
  int64_t query = 0, queries = 0, key = 0, keys = 0;
  int64_t query_position = 0, key_position = 0;
  int64_t heads = 0, kv_heads = 0, window = 0;
  float scale = 0;
};
struct AttentionPartForward {
  AttentionStretch at;
  TensorView out, lse;
};
struct AttentionPartBackward {
  AttentionStretch at;
  TensorView out, lse, dout, dq, dkv;
};

void attention_forward(Context& context, const AttentionForward& args);
void attention_backward(Context& context, const AttentionBackward& args);
void attention_part_forward(Context& context, const AttentionPartForward& args);
void attention_part_backward(Context& context, const AttentionPartBackward& args);

}  // namespace stoker::ops
