// parallel/layer_gather.h
// ZeRO 3: brings the values of a layer together just before it is used, and the next one's beside the work on this one. All replicas
// of a share use the layers in the same order, so everybody knows when to send what.
// Memory       the store's ring of two layers; nothing else. A layer that is still in it does not come again
// Bits         copies
// Errors       comm::PeerError
#pragma once
#include <array>
#include <map>
#include <vector>

#include "comm/communicator.h"
#include "nn/parameter_store.h"
#include "parallel/holdings.h"
#include "parallel/sharded_optimizer.h"

namespace stoker::parallel {

class LayerGather {
 public:
  LayerGather(const Holdings& holdings, nn::ParameterStore& store, comm::Communicator& replicas,
              ops::Context& context);
  // Layer `layer` in the ring; then `next` (-1: none) begins to come, unless it would take this one's place. masters: who holds this
  // worker's shard.
  void bring(int64_t layer, int64_t next, const ShardedOptimizer& masters);
  double waited_s() const { return waited_s_; }  // since construction, for layers that had not come yet
  void forget();                                 // the values have changed; waits for what is on its way

 private:
  void start(int64_t layer, const ShardedOptimizer& masters);
  void finish();
  const Holdings& holdings_;
  nn::ParameterStore& store_;
  comm::Communicator& replicas_;
  ops::Context& context_;
  struct Layer {
    const HeldFold* fold;
    size_t turn;  // its half of the ring
  };
  std::map<int64_t, Layer> layers_;
  std::array<int64_t, 2> in_ring_{-1, -1};
  int64_t coming_ = -1;
  double waited_s_ = 0;
  std::vector<comm::Ticket> tickets_;
};

}  // namespace stoker::parallel
