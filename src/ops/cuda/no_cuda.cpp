#include "ops/cuda/candidates.h"

namespace stoker::ops::cuda {
namespace {

template <typename Args>
std::string refuse(const Args&) {
  return "built without CUDA";
}
template <typename Args>
constexpr Candidate<Args> kNone[] = {{"cuda", refuse<Args>, nullptr}};

}  // namespace

std::span<const Candidate<LinearForward>> linear_forward_candidates() { return kNone<LinearForward>; }
std::span<const Candidate<LinearBackwardInput>> linear_backward_input_candidates() {
  return kNone<LinearBackwardInput>;
}
std::span<const Candidate<LinearBackwardWeight>> linear_backward_weight_candidates() {
  return kNone<LinearBackwardWeight>;
}
std::span<const Candidate<NormForward>> norm_forward_candidates() { return kNone<NormForward>; }
std::span<const Candidate<NormBackward>> norm_backward_candidates() { return kNone<NormBackward>; }
std::span<const Candidate<AdamW>> adamw_candidates() { return kNone<AdamW>; }

}  // namespace stoker::ops::cuda
