// Attention for avx512: the body is shared, lanes and dot products are not.
#include "ops/cpu/lanes_avx512.h"
// after the lanes
#include "ops/cpu/lanes_math.h"
// after the math
#include "ops/cpu/dot_f32.h"
// after the dot products
#include "ops/cpu/attention_body.h"
#include "ops/cpu/attention_candidates.h"

namespace stoker::ops::cpu {
void attention_forward_avx512(Context& context, const AttentionForward& args) {
  attention_forward_cpu(context, args);
}
void attention_backward_avx512(Context& context, const AttentionBackward& args) {
  attention_backward_cpu(context, args);
}
void attention_part_forward_avx512(Context& context, const AttentionPartForward& args) {
  attention_part_forward_cpu(context, args);
}
void attention_part_backward_avx512(Context& context, const AttentionPartBackward& args) {
  attention_part_backward_cpu(context, args);
}
}  // namespace stoker::ops::cpu
