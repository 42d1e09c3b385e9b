#include "parallel/layer_gather.h"

#include <cstring>

#include "ops/update.h"

namespace stoker::parallel {

LayerGather::LayerGather(const Holdings& holdings, nn::ParameterStore& store, int64_t layers,
                         comm::Communicator& data, ops::Context& context)
    : holdings_(holdings), store_(store), layers_(layers), data_(data), context_(context) {
  fold_of_.resize(static_cast<size_t>(layers));
  for (const HeldFold& f : holdings.folds())
    if (f.layer >= 0) fold_of_[static_cast<size_t>(f.layer)] = &f;
}

void LayerGather::bring(int64_t layer, int64_t next, const ShardedOptimizer& masters) {
  if (coming_ >= 0 && coming_ != layer) finish();
  if (in_ring_[static_cast<size_t>(layer % 2)] != layer) {
    if (coming_ != layer) start(layer, masters);
    finish();
  }
  if (next >= 0 && next < layers_ && in_ring_[static_cast<size_t>(next % 2)] != next) start(next, masters);
}

void LayerGather::start(int64_t layer, const ShardedOptimizer& masters) {
  const HeldFold& fold = *fold_of_.at(static_cast<size_t>(layer));
  const auto cuts = holdings_.cuts(fold, data_.size());
  const auto n = static_cast<size_t>(data_.size()), me = static_cast<size_t>(data_.rank());
  const size_t flat = fold.blocks.front().flat;
  auto* values = store_.stretch(flat, fold.size()).value.as<float>();
  in_ring_[static_cast<size_t>(layer % 2)] = -1;
  coming_ = layer;
  const size_t own = cuts[me + 1] - cuts[me];
  const float* mine = own ? masters.value({flat + cuts[me], flat + cuts[me + 1]}) : nullptr;
  if (own) std::memcpy(values + cuts[me], mine, own * sizeof(float));
  for (size_t hop = 1; hop < n; ++hop) {
    const size_t from = (me + n - hop) % n, to = (me + hop) % n, theirs = cuts[from + 1] - cuts[from];
    if (theirs)
      tickets_.push_back(data_.post_receive(std::as_writable_bytes(std::span(values + cuts[from], theirs)),
                                            static_cast<int>(from)));
    if (own) tickets_.push_back(data_.post_send(std::as_bytes(std::span(mine, own)), static_cast<int>(to)));
  }
}

void LayerGather::finish() {
  const double busy_before_s = data_.busy_s();
  for (const comm::Ticket& t : tickets_) data_.await(t);
  waited_s_ += data_.busy_s() - busy_before_s;
  tickets_.clear();
  const HeldFold& fold = *fold_of_.at(static_cast<size_t>(coming_));
  const nn::Weight w = store_.stretch(fold.blocks.front().flat, fold.size());
  if (w.compute.data != w.value.data) ops::round_copy(context_, {w.value, w.compute});
  in_ring_[static_cast<size_t>(coming_ % 2)] = coming_;
  coming_ = -1;
}

void LayerGather::forget() {
  if (coming_ >= 0) finish();
  in_ring_ = {-1, -1};
}

}  // namespace stoker::parallel
