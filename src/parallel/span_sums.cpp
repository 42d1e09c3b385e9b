#include "parallel/span_sums.h"

#include <cstring>

namespace stoker::parallel {
namespace {

constexpr size_t kSumsOnTheWay = 2;

std::span<const std::byte> bytes(const float* data, size_t count) {
  return std::as_bytes(std::span(data, count));
}

}  // namespace

SpanSums::SpanSums(const Holdings& holdings, const std::vector<comm::LeafSpan>& spans,
                   comm::Communicator& replicas, bool everywhere, float* sums)
    : holdings_(holdings), replicas_(replicas), everywhere_(everywhere), sums_(sums) {
  int leaves = 0;
  for (const comm::LeafSpan& s : spans) leaves += s.size();
  for (size_t w = 0; w < spans.size(); ++w)
    for (const comm::LeafSpan& part : comm::complete_subtrees(spans[w], leaves)) {
      parts_.push_back(part);
      owner_.push_back(static_cast<int>(w));
    }
  plan_ = comm::fold_plan(parts_, leaves);
}

void SpanSums::give(size_t index, const std::vector<float*>& partials) {
  // The oldest has had the time of a layer to come: now it is folded and passed on, and the one before it is waited for.
  while (ways_.size() >= kSumsOnTheWay) {
    finish(ways_.front());
    ways_.pop_front();
  }
  for (OnTheWay& way : ways_) fold(way);
  const HeldFold& held = holdings_.folds()[index];
  const auto cuts = holdings_.cuts(held, replicas_.size());
  const auto n = static_cast<size_t>(replicas_.size()), me = static_cast<size_t>(replicas_.rank());
  const size_t mine = cuts[me + 1] - cuts[me];
  OnTheWay& way = ways_.emplace_back();
  way.fold = &held;
  way.own = partials;
  way.pieces.resize(parts_.size());
  for (size_t hop = 1; hop < n; ++hop) {
    const size_t from = (me + n - hop) % n, to = (me + hop) % n, theirs = cuts[to + 1] - cuts[to];
    for (size_t p = 0; p < parts_.size() && mine > 0; ++p) {
      if (owner_[p] != static_cast<int>(from)) continue;
      way.pieces[p].resize(mine);
      way.receives.push_back(
          replicas_.post_receive(std::as_writable_bytes(std::span(way.pieces[p])), static_cast<int>(from)));
    }
    if (theirs == 0) continue;
    for (const float* p : partials)
      way.sends.push_back(replicas_.post_send(bytes(p + cuts[to], theirs), static_cast<int>(to)));
  }
}

// This worker's shard of the sum, and on its way to those who need it.
void SpanSums::fold(OnTheWay& way) {
  if (way.folded) return;
  way.folded = true;
  for (const comm::Ticket& t : way.receives) replicas_.await(t);
  way.receives.clear();
  const auto cuts = holdings_.cuts(*way.fold, replicas_.size());
  const auto n = static_cast<size_t>(replicas_.size()), me = static_cast<size_t>(replicas_.rank());
  const size_t mine = cuts[me + 1] - cuts[me];
  float* sums = sums_ + way.fold->begin;
  if (mine > 0) {
    std::vector<float*> slots(parts_.size());
    size_t own = 0;
    for (size_t p = 0; p < parts_.size(); ++p)
      slots[p] = owner_[p] == static_cast<int>(me) ? way.own[own++] + cuts[me] : way.pieces[p].data();
    for (const comm::Fold& f : plan_)
      comm::add_into(slots[static_cast<size_t>(f.into)], slots[static_cast<size_t>(f.from)], mine);
    std::memcpy(sums + cuts[me], slots[0], mine * sizeof(float));
  }
  way.pieces.clear();
  for (size_t hop = 1; hop < n; ++hop) {
    if (!everywhere_ && hop > 1) break;
    const size_t from = (me + n - hop) % n, to = (me + hop) % n, theirs = cuts[from + 1] - cuts[from];
    if (theirs > 0)
      way.receives.push_back(replicas_.post_receive(
          std::as_writable_bytes(std::span(sums + cuts[from], theirs)), static_cast<int>(from)));
    if (mine > 0)
      way.sends.push_back(replicas_.post_send(bytes(sums + cuts[me], mine), static_cast<int>(to)));
  }
}

void SpanSums::finish(OnTheWay& way) {
  fold(way);
  for (const comm::Ticket& t : way.receives) replicas_.await(t);
  for (const comm::Ticket& t : way.sends) replicas_.await(t);
}

void SpanSums::settle() {
  for (OnTheWay& way : ways_) fold(way);
  for (OnTheWay& way : ways_) finish(way);
  ways_.clear();
}

}  // namespace stoker::parallel
