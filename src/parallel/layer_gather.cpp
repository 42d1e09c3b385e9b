#include "parallel/layer_gather.h"

#include <cstring>

#include "ops/update.h"

namespace stoker::parallel {

LayerGather::LayerGather(const Holdings& holdings, nn::ParameterStore& store, comm::Communicator& replicas,
                         ops::Context& context)
    : holdings_(holdings), store_(store), replicas_(replicas), context_(context) {
  for (const HeldFold& f : holdings.folds())
    if (f.layer >= 0) layers_[f.layer] = {&f, layers_.size() % 2};  // as nn/parameter_store.h deals them
}

void LayerGather::bring(int64_t layer, int64_t next, const ShardedOptimizer& masters) {
  const size_t turn = layers_.at(layer).turn;
  if (coming_ >= 0 && coming_ != layer) finish();
  if (in_ring_[turn] != layer) {
    if (coming_ != layer) start(layer, masters);
    finish();
  }
  if (next < 0) return;
  const size_t next_turn = layers_.at(next).turn;
  if (next_turn != turn && in_ring_[next_turn] != next) start(next, masters);
}

void LayerGather::start(int64_t layer, const ShardedOptimizer& masters) {
  const auto& [held, turn] = layers_.at(layer);
  const HeldFold& fold = *held;
  const auto cuts = holdings_.cuts(fold, replicas_.size());
  const auto n = static_cast<size_t>(replicas_.size()), me = static_cast<size_t>(replicas_.rank());
  const size_t flat = fold.blocks.front().flat;
  auto* values = store_.stretch(flat, fold.size()).value.as<float>();
  in_ring_[turn] = -1;
  coming_ = layer;
  const size_t own = cuts[me + 1] - cuts[me];
  const float* mine = own ? masters.value({flat + cuts[me], flat + cuts[me + 1]}) : nullptr;
  if (own) std::memcpy(values + cuts[me], mine, own * sizeof(float));
  for (size_t hop = 1; hop < n; ++hop) {
    const size_t from = (me + n - hop) % n, to = (me + hop) % n, theirs = cuts[from + 1] - cuts[from];
    if (theirs)
      tickets_.push_back(replicas_.post_receive(
          std::as_writable_bytes(std::span(values + cuts[from], theirs)), static_cast<int>(from)));
    if (own)
      tickets_.push_back(replicas_.post_send(std::as_bytes(std::span(mine, own)), static_cast<int>(to)));
  }
}

void LayerGather::finish() {
  const double busy_before_s = replicas_.busy_s();
  for (const comm::Ticket& t : tickets_) replicas_.await(t);
  waited_s_ += replicas_.busy_s() - busy_before_s;
  tickets_.clear();
  const auto& [held, turn] = layers_.at(coming_);
  const HeldFold& fold = *held;
  const nn::Weight w = store_.stretch(fold.blocks.front().flat, fold.size());
  if (w.compute.data != w.value.data) ops::round_copy(context_, {w.value, w.compute});
  in_ring_[turn] = coming_;
  coming_ = -1;
}

void LayerGather::forget() {
  if (coming_ >= 0) finish();
  in_ring_ = {-1, -1};
}

}  // namespace stoker::parallel
