#include "parallel/gradient_shards.h"

#include <algorithm>
#include <cstring>

namespace stoker::parallel {
namespace {
constexpr size_t kGradientsOnTheWay = 2;
}  // namespace

int64_t Dealing::leaf(int64_t replica, int64_t round) const {
  const int64_t v = virtual_rank(replica, round);
  return v < virtual_ranks ? replica / data * virtual_ranks + v : -1;
}

size_t Dealing::open_buffers() const {
  comm::TreeAccumulator tree({0, static_cast<int>(leaves())}, static_cast<int>(leaves()), 0);
  size_t most = 0;
  for (int64_t round = 0; round < rounds(); ++round)
    for (int64_t w = 0; w < data * context; ++w)
      if (const auto at = static_cast<int>(leaf(w, round)); at >= 0) {
        tree.open(at);
        most = std::max(most, tree.parts());
        tree.close(at);
      }
  return most;
}

GradientShards::GradientShards(const Holdings& holdings, const Dealing& dealing, comm::Communicator& replicas)
    : holdings_(holdings), dealing_(dealing), replicas_(replicas) {
  const auto leaves = static_cast<int>(dealing.leaves());
  const auto me = static_cast<size_t>(replicas.rank());
  for (const HeldFold& f : holdings.folds()) {
    const auto cuts = holdings.cuts(f, replicas.size());
    trees_.push_back(
        std::make_unique<comm::TreeAccumulator>(comm::LeafSpan{0, leaves}, leaves, cuts[me + 1] - cuts[me]));
  }
}

void GradientShards::give(size_t fold, int64_t round, const float* gradient) {
  settle_but(kGradientsOnTheWay - 1);
  const auto cuts = holdings_.cuts(holdings_.folds()[fold], replicas_.size());
  const auto n = static_cast<size_t>(replicas_.size()), me = static_cast<size_t>(replicas_.rank());
  const auto part = [&](size_t w) { return cuts[w + 1] - cuts[w]; };
  OnTheWay& way = ways_.emplace_back();
  way.fold = fold, way.round = round;
  way.gradient = gradient;
  way.own = gradient ? gradient + cuts[me] : nullptr;
  way.receives.resize(n), way.pieces.resize(n);
  for (size_t hop = 1; hop < n; ++hop) {
    const size_t from = (me + n - hop) % n, to = (me + hop) % n;
    if (dealing_.leaf(static_cast<int64_t>(from), round) >= 0 && part(me) > 0) {
      way.pieces[from].resize(part(me));
      way.receives[from] =
          replicas_.post_receive(std::as_writable_bytes(std::span(way.pieces[from])), static_cast<int>(from));
    }
    if (gradient && part(to) > 0)
      way.sends.push_back(
          replicas_.post_send(std::as_bytes(std::span(gradient + cuts[to], part(to))), static_cast<int>(to)));
  }
}

void GradientShards::settle(const float* gradient) {
  for (size_t i = ways_.size(); i-- > 0;)
    if (ways_[i].gradient == gradient) return settle_but(ways_.size() - 1 - i);
}

void GradientShards::settle_but(size_t leave) {
  while (ways_.size() > leave) {
    finish(ways_.front());
    ways_.pop_front();
  }
}

void GradientShards::finish(OnTheWay& way) {
  comm::TreeAccumulator& tree = *trees_[way.fold];
  for (int64_t w = 0; w < replicas_.size(); ++w) {
    const int64_t leaf = dealing_.leaf(w, way.round);
    if (leaf < 0) continue;
    const auto at = static_cast<size_t>(w);
    if (way.receives[at]) replicas_.await(way.receives[at]);
    if (tree.elements() == 0) continue;
    float* to = tree.open(static_cast<int>(leaf));
    std::memcpy(to, w == replicas_.rank() ? way.own : way.pieces[at].data(), tree.elements() * sizeof(float));
    tree.close(static_cast<int>(leaf));
    way.pieces[at] = {};
  }
  for (const comm::Ticket& t : way.sends) replicas_.await(t);
}

const float* GradientShards::sum(size_t fold) {
  settle();
  return trees_[fold]->elements() == 0 ? nullptr : trees_[fold]->partials().at(0);
}

void GradientShards::reset() {
  for (auto& tree : trees_) tree->reset();
}

}  // namespace stoker::parallel
