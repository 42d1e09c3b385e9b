// parallel/gradient_shards.h
// ZeRO 2 and 3: the gradient of each fold leaves the worker that made it as soon as a virtual rank has finished it, piece by piece to
// the owners of its shards, who fold the pieces by the tree. Virtual ranks are dealt like cards (of d replicas number w computes w, w+d,
// w+2d, ...), so the pieces of a round are neighbours in the tree and an owner keeps few of them.
//     every worker of the group, in the same order of folds and rounds:   give(fold, round, gradient or null)
//     before `gradient` is used again:                                   settle(gradient)
//     at the end:                                                        sum(fold)
// Bits         those of comm/tree.h over all leaves, for any number of workers
// Overlap      a fold's messages move while the next one is computed: two folds may be on their way
// Memory       of a worker's shard: open_buffers(); of folds on their way: n-1 pieces
// Errors       comm::PeerError
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "parallel/holdings.h"

namespace stoker::parallel {

// Virtual ranks among `data` replicas; where `context` workers have parts of the rows each of them has a set of leaves for all
// virtual ranks, one set after the other (parallel/holdings.h: replica_of).
struct Dealing {
  int64_t data = 1, context = 1, virtual_ranks = 1;
  int64_t rounds() const { return (virtual_ranks + data - 1) / data; }
  int64_t leaves() const { return virtual_ranks * context; }
  // The virtual rank of a replica in a round; beyond the last one for a replica that has none left.
  int64_t virtual_rank(int64_t replica, int64_t round) const { return round * data + replica % data; }
  // Its leaf of the tree, -1 for none.
  int64_t leaf(int64_t replica, int64_t round) const;
  // Buffers of a shard at the worst, between the pieces of all leaves.
  size_t open_buffers() const;
};

class GradientShards {
 public:
  GradientShards(const Holdings& holdings, const Dealing& dealing, comm::Communicator& replicas);
  void give(size_t fold, int64_t round, const float* gradient);
  void settle() { settle_but(0); }
  void settle(const float* gradient);  // as far as this one is on its way
  // This worker's shard of the total, cuts(fold)[rank] .. cuts(fold)[rank + 1]; null when it is empty.
  const float* sum(size_t fold);
  void reset();

 private:
  struct OnTheWay {
    size_t fold;
    int64_t round;
    const float *gradient, *own;
    std::vector<comm::Ticket> sends, receives;  // receives: by worker, null where it has nothing
    std::vector<std::vector<float>> pieces;     // by worker
  };
  void settle_but(size_t leave);  // the newest
  void finish(OnTheWay& way);
  const Holdings& holdings_;
  Dealing dealing_;
  comm::Communicator& replicas_;
  std::vector<std::unique_ptr<comm::TreeAccumulator>> trees_;
  std::deque<OnTheWay> ways_;
};

}  // namespace stoker::parallel
