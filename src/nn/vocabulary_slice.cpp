#include "nn/vocabulary_slice.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "ops/cross_entropy.h"
#include "ops/element.h"

namespace stoker::nn {
namespace {

constexpr int64_t kSent = 3;  // numbers a row: maximum, sum of exponentials, target's logit

}  // namespace

VocabularySlice::VocabularySlice(int64_t vocab, TensorPeers& peers)
    : peers_(peers),
      vocab_(vocab),
      begin_(first_token(vocab, peers.place())),
      end_(first_token(vocab, {peers.place().size, peers.place().rank + 1})) {}

void VocabularySlice::look_up(std::span<const int32_t> tokens, const Weight& embedding,
                              std::span<const int32_t> positions, const Weight& position_table,
                              TensorView partial, TensorView out) {
  const int64_t width = partial.columns();
  for (size_t r = 0; r < tokens.size(); ++r)
    if (tokens[r] < 0 || tokens[r] >= vocab_)
      fail(ErrorKind::kData, "token {} in row {} is outside 0..{}: the data does not belong to this model",
           tokens[r], r, vocab_ - 1);
  const bool adds_positions = position_table && peers_.place().rank == 0;  // f32 sums of two: in any order
  const auto row = [&](int64_t r) {
    float* to = partial.as<float>() + r * width;
    const int32_t token = tokens[static_cast<size_t>(r)];
    if (mine(token))
      for (int64_t i = 0; i < width; ++i) to[i] = ops::get(embedding.compute, (token - begin_) * width + i);
    else std::memset(to, 0, static_cast<size_t>(width) * sizeof(float));
    if (adds_positions)
      for (int64_t i = 0; i < width; ++i)
        to[i] += ops::get(position_table.compute, positions[static_cast<size_t>(r)] * width + i);
  };
  const auto rows = [&](int64_t begin, int64_t end) {
    parallel_for(end - begin, [&](int64_t r) { row(begin + r); });
  };
  peers_.sum(partial, rows, {}, {}, out);
}

std::span<const int32_t> VocabularySlice::own_tokens(std::span<const int32_t> tokens) {
  own_.clear();
  for (const int32_t t : tokens)
    if (mine(t)) own_.push_back(t - static_cast<int32_t>(begin_));
  return own_;
}

TensorView VocabularySlice::own_rows(std::span<const int32_t> tokens, TensorView dy) const {
  const size_t row = static_cast<size_t>(dy.columns()) * dtype_size(dy.dtype);
  auto* base = static_cast<std::byte*>(dy.data);
  size_t at = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    if (!mine(tokens[r])) continue;
    if (at != r) std::memcpy(base + at * row, base + r * row, row);
    ++at;
  }
  return dy.reshaped({static_cast<int64_t>(tokens.size()), dy.columns()})
      .slice_rows(0, static_cast<int64_t>(at));
}

size_t VocabularySlice::memory_bytes(int64_t rows, int64_t workers) {
  return static_cast<size_t>(rows) * (sizeof(int32_t) * 2 + sizeof(float) * 3 + sizeof(double) +
                                      sizeof(double) * static_cast<size_t>(kSent * (1 + workers)));
}

void VocabularySlice::loss(ops::Context& context, TensorView logits, std::span<const int32_t> targets,
                           TensorView losses, TensorView dlogits, float scale) {
  const int64_t rows = logits.rows(), workers = peers_.place().size;
  const auto n = static_cast<size_t>(rows);
  STOKER_CHECK(targets.size() == n && losses.count() == rows);
  targets_.resize(n), top_.resize(n), target_logit_.resize(n), factor_.resize(n), sum_.resize(n);
  sent_.resize(n * kSent), received_.resize(n * kSent * static_cast<size_t>(workers));
  for (size_t r = 0; r < n; ++r) {
    if (targets[r] < -1 || targets[r] >= vocab_)
      fail(ErrorKind::kData, "target {} in row {} is outside -1..{}: the data does not belong to this model",
           targets[r], r, vocab_ - 1);
    targets_[r] = mine(targets[r]) ? targets[r] - static_cast<int32_t>(begin_) : -1;
  }
  const TensorView local = view_of(targets_.data(), {rows});
  ops::slice_softmax(context, {logits, local, view_of(top_.data(), {rows}), view_of(sum_.data(), {rows}),
                               view_of(target_logit_.data(), {rows})});
  for (size_t r = 0; r < n; ++r) {
    sent_[r * kSent] = static_cast<double>(top_[r]);
    sent_[r * kSent + 1] = sum_[r];
    sent_[r * kSent + 2] = static_cast<double>(target_logit_[r]);
  }
  peers_.gather(std::as_bytes(std::span(sent_)), std::as_writable_bytes(std::span(received_)));
  for (size_t r = 0; r < n; ++r) {
    const auto said = [&](int64_t w, size_t what) {
      return received_[(static_cast<size_t>(w) * n + r) * kSent + what];
    };
    double top = said(0, 0), sum = 0, target_logit = 0;
    for (int64_t w = 1; w < workers; ++w) top = std::max(top, said(w, 0));
    for (int64_t w = 0; w < workers; ++w) {
      sum += said(w, 1) * std::exp(said(w, 0) - top);
      target_logit += said(w, 2);  // zero but on one
    }
    const bool counts = targets[r] >= 0;
    losses.as<float>()[r] = counts ? static_cast<float>(top + std::log(sum) - target_logit) : 0;
    factor_[r] = counts ? static_cast<float>(static_cast<double>(scale) *
                                             std::exp(static_cast<double>(top_[r]) - top) / sum)
                        : 0;
  }
  if (dlogits) ops::slice_gradient(context, {logits, local, view_of(factor_.data(), {rows}), dlogits, scale});
}

}  // namespace stoker::nn
