// ops/cpu/attention_candidates.h
// The CPU's attention, one pair of functions an instruction set. bf16 dot products only in _avx512bf16; the
// others widen to f32.
#pragma once
#include "ops/attention.h"

namespace stoker::ops::cpu {

void attention_forward_avx512bf16(Context&, const AttentionForward&);
void attention_backward_avx512bf16(Context&, const AttentionBackward&);
void attention_part_forward_avx512bf16(Context&, const AttentionPartForward&);
void attention_part_backward_avx512bf16(Context&, const AttentionPartBackward&);
void attention_forward_avx512(Context&, const AttentionForward&);
void attention_backward_avx512(Context&, const AttentionBackward&);
void attention_part_forward_avx512(Context&, const AttentionPartForward&);
void attention_part_backward_avx512(Context&, const AttentionPartBackward&);
void attention_forward_avx2(Context&, const AttentionForward&);
void attention_backward_avx2(Context&, const AttentionBackward&);
void attention_part_forward_avx2(Context&, const AttentionPartForward&);
void attention_part_backward_avx2(Context&, const AttentionPartBackward&);

}  // namespace stoker::ops::cpu
