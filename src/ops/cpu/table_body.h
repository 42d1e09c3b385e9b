// ops/cpu/table_body.h
// Fills the VectorTable of one instruction set. Included last by vector_<isa>.cpp.
#pragma once

namespace {

// One pointer per op: the element type is looked at once per call.
#define STOKER_BY_TYPE(name, rows, view)                                          \
  template <typename Args, typename... More>                                      \
  void name(const Args& a, int64_t begin, int64_t end, More... more) {            \
    if (a.view.dtype == stoker::Dtype::kF32) rows<float>(a, begin, end, more...); \
    else rows<Bf16>(a, begin, end, more...);                                      \
  }
STOKER_BY_TYPE(norm_forward, norm_forward_rows, x)
STOKER_BY_TYPE(norm_backward, norm_backward_rows, x)
STOKER_BY_TYPE(rope_forward, rope_forward_rows, qkv)
STOKER_BY_TYPE(rope_backward, rope_backward_rows, dqkv)
STOKER_BY_TYPE(activation_forward, activation_forward_rows, x)
STOKER_BY_TYPE(activation_backward, activation_backward_rows, x)
STOKER_BY_TYPE(cross_entropy, cross_entropy_rows, dlogits)
STOKER_BY_TYPE(slice_gradient, slice_gradient_rows, dlogits)
#undef STOKER_BY_TYPE

const ops::cpu::VectorTable kTable{norm_forward,       norm_backward,       rope_forward,  rope_backward,
                                   activation_forward, activation_backward, cross_entropy, slice_softmax_rows,
                                   slice_gradient,     adamw_range,         sgd_range,     round_copy_range,
                                   sum_squares_block,  add_range,           add_row,       column_sums};

}  // namespace
