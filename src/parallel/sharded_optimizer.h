// parallel/sharded_optimizer.h
// The optimizer for the ranges of the parameters that this worker updates (parallel/holdings.h). Updates are element by element, so
// a parameter cut into pieces gets the same bits; Muon needs whole matrices and takes whole parameters only (Usage).
// Shapes       ranges are flat: elements of the whole model's array, f32
// State        zero after construction; pack/unpack move values and state of a range between workers
// Memory       the state of the ranges; with OwnMemory also their gradients and values, which the store then need not hold
// Determinism  as optim/optimizer.h, for any cut
#pragma once
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nn/parameter_store.h"
#include "optim/optimizer.h"
#include "parallel/shard_plan.h"
#include "tensor/buffer.h"

namespace stoker::parallel {

struct OwnMemory {
  bool gradients = false, values = false;
};

class ShardedOptimizer {
 public:
  ShardedOptimizer(nn::ParameterStore& store, const optim::OptimizerSettings& settings,
                   std::vector<Range> ranges, OwnMemory own = {});
  // Everything that the store trains.
  ShardedOptimizer(nn::ParameterStore& store, const optim::OptimizerSettings& settings);
  void update(ops::Context& context, const optim::UpdateArguments& arguments);
  const std::vector<Range>& ranges() const { return ranges_; }

  // Values and state of a range that lies inside one of ranges(), as floats.
  size_t packed_floats(Range range) const;
  void pack(Range range, float* out) const;
  void unpack(Range range, const float* in);
  // Memory of its own, for a range inside one of ranges().
  float* gradient(Range range) const { return at(gradients_, range); }
  float* value(Range range) const { return at(values_, range); }
  // The part of a row (whole, beginning at `flat`) that is held here: its values (0) or its n-th state tensor (1, 2).
  void put(size_t flat, std::span<const float> row, int what);
  std::vector<std::string> moments()
      const;  // what a row's state tensors are called, ".exp_avg"; empty: nothing is held
  // State of the ranges that both hold, and values where they lie elsewhere.
  void take_state(const ShardedOptimizer& other);

  // Copies of the state of `range`, all of it held here, which lies in the parameter of that name: named as the whole
  // optimizer names it. Every parameter must have the same kinds of state (AdamW, SGD).
  std::vector<std::pair<std::string, Buffer>> copy_state(const std::string& parameter, Range range) const;

  // Named as optim::Optimizer names it; of a piece of a parameter "name@offset.moment".
  std::vector<NamedTensor> state() const { return optimizer_->state(); }

 private:
  struct Piece {
    Range flat;
    float* value;
    std::vector<float*> state;
  };
  template <typename Each>
  void visit(Range range, const Each& each) const;
  float* at(const Buffer& memory, Range range) const;
  std::vector<Range> ranges_;
  Buffer gradients_, values_;
  std::vector<Piece> pieces_;
  std::unique_ptr<optim::Optimizer> optimizer_;
};

}  // namespace stoker::parallel
