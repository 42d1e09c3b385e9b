// comm/tree.h
// The one order in which V virtual ranks are summed, whoever holds them (docs/same-bits.md).
//   The tree over leaves [lo,hi) splits after the largest power of two below hi-lo; a leaf is a virtual
//   rank's buffer. A worker holds a contiguous span of leaves and folds the complete subtrees inside it; what
//   is left is folded later by whoever owns the shard. Every fold is  left += right  of one tree node, so the
//   bits depend on V only.
// Numbers      f32 additions, one per element and inner node: V-1
// Determinism  the same V -> the same bits for any number of workers, any assignment of spans, any chunking
// Pure: no I/O, no threads. Errors: Usage when a count is not positive.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace stoker::comm {

struct LeafSpan {
  int begin = 0, end = 0;  // virtual ranks [begin,end)
  int size() const { return end - begin; }
  bool operator==(const LeafSpan&) const = default;
};

// Which virtual ranks a worker holds: contiguous, sizes differ by at most one, the first workers hold the
// larger ones. Workers beyond V hold none.
LeafSpan leaves_of(int worker, int workers, int virtual_ranks);

// Where the node [lo,hi) splits (lo < result < hi; hi-lo >= 2).
int split_of(int lo, int hi);

// The largest nodes of the tree over V leaves that lie inside the span, left to right.
std::vector<LeafSpan> complete_subtrees(LeafSpan span, int virtual_ranks);

// slot[into] += slot[from], in this order; the total ends in slot 0. Slots are the parts, left to right.
struct Fold {
  int into = 0, from = 0;
};
// parts: nodes of the tree that together cover [0,V), left to right.
std::vector<Fold> fold_plan(const std::vector<LeafSpan>& parts, int virtual_ranks);

// Shards of a flat array: whole blocks of kShardBlock elements, spread evenly; the last block may be short.
// Fixed blocks let norms be summed the same way for every worker count.
inline constexpr size_t kShardBlock = 1024;
struct Shard {
  size_t begin = 0, end = 0;
  size_t size() const { return end - begin; }
};
Shard shard_of(size_t elements, int workers, int worker);

// dst[i] += src[i]
void add_into(float* dst, const float* src, size_t n);
// out[i] = left[i] + right[i]; out may be either of them.
void add_to(float* out, const float* left, const float* right, size_t n);

// Folds the buffers of one worker's virtual ranks as they are finished; in order in O(log V) buffers.
//   float* b = acc.open(v); ... accumulate the micro-batches of v into b, in order ...; acc.close(v);
// Every v of the span once, one at a time, in any order: a node is added when both its children are there, always left += right.
// partials() then matches complete_subtrees(span, V).
class TreeAccumulator {
 public:
  TreeAccumulator(LeafSpan span, int virtual_ranks, size_t elements);
  float* open(int leaf);  // zeroed
  void close(int leaf);
  std::vector<float*> partials();
  size_t elements() const { return elements_; }
  size_t parts() const { return parts_.size(); }  // buffers in use
  LeafSpan span() const { return span_; }
  int virtual_ranks() const { return virtual_ranks_; }
  void reset();  // begin the next step; keeps the memory

 private:
  struct Part {
    LeafSpan leaves;
    std::vector<float> data;
  };
  std::vector<float> take_buffer();
  LeafSpan span_;
  int virtual_ranks_;
  size_t elements_;
  int closed_ = 0, open_ = -1;
  std::vector<Part> parts_;  // from left to right
  std::vector<std::vector<float>> spare_;
};

}  // namespace stoker::comm
