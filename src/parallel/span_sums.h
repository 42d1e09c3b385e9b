// parallel/span_sums.h
// ZeRO 0 and 1: sums gradients fold by fold while the backward still makes the others. A worker holds a contiguous span of leaves;
// when the last one's backward has left a layer, the worker's subtrees of that fold are what the sum needs of it (comm/tree.h),
// and their pieces go to the owners of the shards, who fold them and pass the result on.
//     every worker of the group, in the same order of folds:   give(fold, partials)
//     at the end:                                              settle()
// Result       stage 0: every fold's sum in `sums`, on every worker; stage 1: a worker's own shard and the one that it mirrors
// Bits         those of comm/tree.h, as comm::Communicator::tree_all_reduce has them
// Overlap      two folds may be on their way; their messages move at every poll of the communicator
// Memory       of the folds on their way: the others' pieces of this worker's shard
// Lifetime     partials and sums until settle()
// Errors       comm::PeerError
#pragma once
#include <deque>
#include <vector>

#include "comm/communicator.h"
#include "comm/tree.h"
#include "parallel/holdings.h"

namespace stoker::parallel {

class SpanSums {
 public:
  // sums: the worker's flat array of gradients, laid out as its folds.
  // spans: the workers' leaves, left to right.
  SpanSums(const Holdings& holdings, const std::vector<comm::LeafSpan>& spans, comm::Communicator& replicas,
           bool everywhere, float* sums);
  void give(size_t fold, const std::vector<float*>& partials);
  void settle();

 private:
  struct OnTheWay {
    const HeldFold* fold;
    std::vector<float*> own;                 // this worker's partials
    std::vector<std::vector<float>> pieces;  // of this worker's shard, by part of the tree; empty for its own
    std::vector<comm::Ticket> sends, receives;
    bool folded = false;  // and the result is on its way
  };
  void fold(OnTheWay& way);
  void finish(OnTheWay& way);
  const Holdings& holdings_;
  comm::Communicator& replicas_;
  bool everywhere_;
  float* sums_;
  std::vector<comm::LeafSpan> parts_;  // nodes that cover the tree, left to right
  std::vector<int> owner_;             // of each part
  std::vector<comm::Fold> plan_;
  std::deque<OnTheWay> ways_;
};

}  // namespace stoker::parallel
