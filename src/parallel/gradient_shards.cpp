#include "parallel/gradient_shards.h"

#include <cstring>

namespace stoker::parallel {
namespace {
constexpr size_t kOnTheWay = 2;
}  // namespace

int64_t dealt_rounds(int64_t workers, int64_t virtual_ranks) {
  return (virtual_ranks + workers - 1) / workers;
}

GradientShards::GradientShards(const Holdings& holdings, int64_t virtual_ranks, comm::Communicator& data)
    : holdings_(holdings), virtual_ranks_(virtual_ranks), data_(data) {
  for (const HeldFold& f : holdings.folds()) {
    const auto cuts = holdings.cuts(f, data.size());
    const auto me = static_cast<size_t>(data.rank());
    trees_.push_back(
        std::make_unique<comm::TreeAccumulator>(comm::LeafSpan{0, static_cast<int>(virtual_ranks)},
                                                static_cast<int>(virtual_ranks), cuts[me + 1] - cuts[me]));
  }
}

void GradientShards::give(size_t fold, int64_t round, const float* gradient) {
  settle(kOnTheWay - 1);
  const auto cuts = holdings_.cuts(holdings_.folds()[fold], data_.size());
  const auto n = static_cast<size_t>(data_.size()), me = static_cast<size_t>(data_.rank());
  const auto part = [&](size_t w) { return cuts[w + 1] - cuts[w]; };
  OnTheWay& way = ways_.emplace_back();
  way.fold = fold, way.round = round;
  way.own = gradient ? gradient + cuts[me] : nullptr;
  way.receives.resize(n), way.pieces.resize(n);
  for (size_t hop = 1; hop < n; ++hop) {
    const size_t from = (me + n - hop) % n, to = (me + hop) % n;
    if (dealt_leaf(data_.size(), static_cast<int64_t>(from), round) < virtual_ranks_ && part(me) > 0) {
      way.pieces[from].resize(part(me));
      way.receives[from] =
          data_.post_receive(std::as_writable_bytes(std::span(way.pieces[from])), static_cast<int>(from));
    }
    if (gradient && part(to) > 0)
      way.sends.push_back(
          data_.post_send(std::as_bytes(std::span(gradient + cuts[to], part(to))), static_cast<int>(to)));
  }
}

void GradientShards::settle(size_t leave) {
  while (ways_.size() > leave) {
    finish(ways_.front());
    ways_.pop_front();
  }
}

void GradientShards::finish(OnTheWay& way) {
  comm::TreeAccumulator& tree = *trees_[way.fold];
  for (int64_t w = 0; w < data_.size(); ++w) {
    const int64_t leaf = dealt_leaf(data_.size(), w, way.round);
    if (leaf >= virtual_ranks_) break;
    const auto at = static_cast<size_t>(w);
    if (way.receives[at]) data_.await(way.receives[at]);
    if (tree.elements() == 0) continue;
    float* to = tree.open(static_cast<int>(leaf));
    std::memcpy(to, w == data_.rank() ? way.own : way.pieces[at].data(), tree.elements() * sizeof(float));
    tree.close(static_cast<int>(leaf));
    way.pieces[at] = {};
  }
  for (const comm::Ticket& t : way.sends) data_.await(t);
}

const float* GradientShards::sum(size_t fold) {
  settle();
  return trees_[fold]->elements() == 0 ? nullptr : trees_[fold]->partials().at(0);
}

void GradientShards::reset() {
  for (auto& tree : trees_) tree->reset();
}

}  // namespace stoker::parallel
