#include "nn/lookup_gradient.h"

#include <algorithm>

#include "base/threads.h"
#include "ops/embedding.h"

namespace stoker::nn {

void LookupGradient::observe(std::span<const int32_t> tokens) {
  for (const int32_t t : tokens) {
    if (t < 0 || static_cast<size_t>(t) >= slot_of_.size())
      fail(ErrorKind::kData, "token {} is outside the vocabulary of {}", t, slot_of_.size());
    int32_t& slot = slot_of_[static_cast<size_t>(t)];
    if (slot >= 0) continue;
    slot = static_cast<int32_t>(tokens_.size());
    tokens_.push_back(t);
  }
  const size_t used = tokens_.size() * static_cast<size_t>(width_);
  if (rows_.size() < used) rows_.resize(used, 0.0f);
}

void LookupGradient::add(ops::Context& context, std::span<const int32_t> tokens, TensorView dy,
                         TensorView positions, TensorView dposition_table) {
  slots_.clear();
  for (const int32_t t : tokens) slots_.push_back(slot_of_[static_cast<size_t>(t)]);
  const auto n = static_cast<int64_t>(tokens.size());
  ops::embedding_backward(context, {view_of(slots_.data(), {n}), dy,
                                    view_of(rows_.data(), {static_cast<int64_t>(tokens_.size()), width_}),
                                    positions, dposition_table});
}

void LookupGradient::flush(TensorView grad) {
  parallel_for(static_cast<int64_t>(tokens_.size()), [&](int64_t s) {
    float* to = grad.as<float>() + tokens_[static_cast<size_t>(s)] * width_;
    const float* from = rows_.data() + s * width_;
    for (int64_t i = 0; i < width_; ++i) to[i] += from[i];
  });
  clear();
}

void LookupGradient::clear() {
  std::fill(rows_.begin(), rows_.begin() + static_cast<int64_t>(tokens_.size()) * width_, 0.0f);
  for (const int32_t t : tokens_) slot_of_[static_cast<size_t>(t)] = -1;
  tokens_.clear();
}

}  // namespace stoker::nn
