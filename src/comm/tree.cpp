#include "comm/tree.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace stoker::comm {
namespace {

void cover(LeafSpan node, LeafSpan span, std::vector<LeafSpan>& out) {
  if (node.end <= span.begin || span.end <= node.begin) return;
  if (span.begin <= node.begin && node.end <= span.end) {
    out.push_back(node);
    return;
  }
  const int mid = split_of(node.begin, node.end);
  cover({node.begin, mid}, span, out);
  cover({mid, node.end}, span, out);
}

struct Planner {
  const std::vector<LeafSpan>& parts;
  std::vector<Fold> folds;
  size_t next = 0;  // parts are met left to right

  int value(LeafSpan node) {
    STOKER_CHECK(next < parts.size() && parts[next].begin == node.begin, "parts do not cover the tree");
    if (parts[next] == node) return static_cast<int>(next++);
    STOKER_CHECK(node.size() > 1 && parts[next].end <= node.end, "part [{},{}) is not a node of the tree",
                 parts[next].begin, parts[next].end);
    const int mid = split_of(node.begin, node.end);
    const int left = value({node.begin, mid});
    const int right = value({mid, node.end});
    folds.push_back({left, right});
    return left;
  }
};

// Are left and right the two children of one node of the tree over [lo,hi)?
bool siblings(LeafSpan left, LeafSpan right, int lo, int hi) {
  if (left.end != right.begin) return false;
  while (hi - lo >= 2) {
    const int mid = split_of(lo, hi);
    if (lo == left.begin && hi == right.end && mid == left.end) return true;
    if (right.end <= mid) hi = mid;
    else if (left.begin >= mid) lo = mid;
    else return false;
  }
  return false;
}

}  // namespace

LeafSpan leaves_of(int worker, int workers, int virtual_ranks) {
  if (workers < 1 || virtual_ranks < 1 || worker < 0 || worker >= workers)
    fail(ErrorKind::kUsage,
         "worker {} of {} with {} virtual ranks: expected positive counts and a worker below them", worker,
         workers, virtual_ranks);
  const int each = virtual_ranks / workers, extra = virtual_ranks % workers;
  const int begin = worker * each + std::min(worker, extra);
  return {begin, begin + each + (worker < extra ? 1 : 0)};
}

int split_of(int lo, int hi) {
  STOKER_CHECK(hi - lo >= 2);
  return lo + static_cast<int>(std::bit_floor(static_cast<unsigned>(hi - lo - 1)));
}

std::vector<LeafSpan> complete_subtrees(LeafSpan span, int virtual_ranks) {
  std::vector<LeafSpan> out;
  if (span.size() > 0) cover({0, virtual_ranks}, span, out);
  return out;
}

std::vector<Fold> fold_plan(const std::vector<LeafSpan>& parts, int virtual_ranks) {
  Planner planner{parts, {}, 0};
  planner.value({0, virtual_ranks});
  STOKER_CHECK(planner.next == parts.size(), "{} parts beyond the tree", parts.size() - planner.next);
  return planner.folds;
}

Shard shard_of(size_t elements, int workers, int worker) {
  const size_t blocks = (elements + kShardBlock - 1) / kShardBlock;
  const size_t each = blocks / workers, extra = blocks % workers;
  const auto first = [&](size_t w) {
    return std::min(elements, (w * each + std::min(w, extra)) * kShardBlock);
  };
  return {first(worker), first(worker + 1)};
}

// Additions of separate elements: any vector width gives the same bits.
void add_into(float* __restrict dst, const float* __restrict src, size_t n) {
  using Eight = float __attribute__((vector_size(32), aligned(4), may_alias));
  size_t i = 0;
  for (; i + 8 <= n; i += 8) *reinterpret_cast<Eight*>(dst + i) += *reinterpret_cast<const Eight*>(src + i);
  for (; i < n; ++i) dst[i] += src[i];
}

void add_to(float* out, const float* left, const float* right, size_t n) {
  using Eight = float __attribute__((vector_size(32), aligned(4), may_alias));
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    *reinterpret_cast<Eight*>(out + i) =
        *reinterpret_cast<const Eight*>(left + i) + *reinterpret_cast<const Eight*>(right + i);
  for (; i < n; ++i) out[i] = left[i] + right[i];
}

TreeAccumulator::TreeAccumulator(LeafSpan span, int virtual_ranks, size_t elements)
    : span_(span), virtual_ranks_(virtual_ranks), elements_(elements) {
  if (virtual_ranks < 1 || span.begin < 0 || span.end > virtual_ranks || span.size() < 0)
    fail(ErrorKind::kUsage, "virtual ranks [{},{}) of {}: expected a span inside them", span.begin, span.end,
         virtual_ranks);
}

std::vector<float> TreeAccumulator::take_buffer() {
  if (spare_.empty()) return std::vector<float>(elements_, 0.0f);
  std::vector<float> buffer = std::move(spare_.back());
  spare_.pop_back();
  std::fill(buffer.begin(), buffer.end(), 0.0f);
  return buffer;
}

float* TreeAccumulator::open(int leaf) {
  const auto at =
      std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return p.leaves.end > leaf; });
  STOKER_CHECK(
      open_ < 0 && leaf >= span_.begin && leaf < span_.end && (at == parts_.end() || at->leaves.begin > leaf),
      "virtual rank {} of [{},{}) opened twice or beside {}", leaf, span_.begin, span_.end, open_);
  open_ = leaf;
  return parts_.insert(at, {{leaf, leaf + 1}, take_buffer()})->data.data();
}

void TreeAccumulator::close(int leaf) {
  STOKER_CHECK(open_ == leaf, "virtual rank {} closed, but {} is open", leaf, open_);
  open_ = -1;
  ++closed_;
  auto at = std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return p.leaves.begin == leaf; });
  const auto are_siblings = [&](auto left, auto right) {
    return siblings(left->leaves, right->leaves, 0, virtual_ranks_);
  };
  for (;;) {
    if (at != parts_.begin() && are_siblings(at - 1, at)) --at;
    else if (at + 1 == parts_.end() || !are_siblings(at, at + 1)) return;
    const auto right = at + 1;
    add_into(at->data.data(), right->data.data(), elements_);
    at->leaves.end = right->leaves.end;
    spare_.push_back(std::move(right->data));
    parts_.erase(right);
  }
}

std::vector<float*> TreeAccumulator::partials() {
  STOKER_CHECK(open_ < 0 && closed_ == span_.size(), "partials asked for after {} virtual ranks of [{},{})",
               closed_, span_.begin, span_.end);
  std::vector<float*> out;
  for (Part& part : parts_) out.push_back(part.data.data());
  return out;
}

void TreeAccumulator::reset() {
  for (Part& part : parts_) spare_.push_back(std::move(part.data));
  parts_.clear();
  closed_ = 0;
  open_ = -1;
}

}  // namespace stoker::comm
