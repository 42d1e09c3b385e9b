// parallel/gradient_shards.h
// ZeRO 2 and 3: the gradient of each fold leaves the worker that made it as soon as a virtual rank has finished it, piece by piece to
// the owners of its shards, who fold the pieces in the tree's order. Virtual ranks are dealt like cards (worker w computes w, w+n,
// w+2n, ...), so the pieces of a round are neighbours in the tree and an owner keeps few of them.
//     every worker of the data axis, in the same order of folds and rounds:   give(fold, round, gradient or null)
//     before `gradient` is used again:                                       settle()
//     at the end:                                                            sum(fold)
// Bits         those of comm/tree.h over all virtual ranks, for any number of workers
// Overlap      a fold's messages move while the next one is computed: two folds may be on their way
// Memory       of a worker's shard: one buffer per open level of the tree (log2 V + 1 at most); of folds on their way: n-1 pieces
// Errors       comm::PeerError
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "parallel/holdings.h"

namespace stoker::parallel {

// The virtual ranks of a worker, and of all workers in a round.
int64_t dealt_rounds(int64_t workers, int64_t virtual_ranks);
inline int64_t dealt_leaf(int64_t workers, int64_t worker, int64_t round) { return round * workers + worker; }

class GradientShards {
 public:
  GradientShards(const Holdings& holdings, int64_t virtual_ranks, comm::Communicator& data);
  void give(size_t fold, int64_t round, const float* gradient);
  void settle(size_t leave = 0);  // all but the `leave` newest
  // This worker's shard of the total, cuts(fold)[rank] .. cuts(fold)[rank + 1]; null when the shard is empty.
  const float* sum(size_t fold);
  void reset();

 private:
  struct OnTheWay {
    size_t fold;
    int64_t round;
    const float* own;
    std::vector<comm::Ticket> sends, receives;  // receives: by worker, null where it has nothing
    std::vector<std::vector<float>> pieces;     // by worker
  };
  void finish(OnTheWay& way);
  const Holdings& holdings_;
  int64_t virtual_ranks_;
  comm::Communicator& data_;
  std::vector<std::unique_ptr<comm::TreeAccumulator>> trees_;
  std::deque<OnTheWay> ways_;
};

}  // namespace stoker::parallel
