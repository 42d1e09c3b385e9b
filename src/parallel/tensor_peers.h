// parallel/tensor_peers.h
// The workers of one tensor-parallel group over their communicator (nn/peers.h says what layers ask of them).
// Numbers      sums are f32 in the order of comm/tree.h over the workers, then rounded once to the type of the result. A product whose
//              inner dimension is cut into n parts is so the single worker's but for the order of its f32 additions
// Determinism  the same number of workers -> the same bits on every worker, with and without split rows
// Cost         a sum moves 4 R D (n-1)/n bytes a worker with split rows, twice that without; gathered rows their own size
// Errors       comm::PeerError
#pragma once
#include "comm/communicator.h"
#include "nn/peers.h"

namespace stoker::parallel {

class CommTensorPeers final : public nn::TensorPeers {
 public:
  CommTensorPeers(comm::Communicator& group, bool split_rows) : group_(group), split_rows_(split_rows) {}
  TensorPlace place() const override { return {group_.size(), group_.rank()}; }
  bool splits_rows() const override { return split_rows_; }
  void sum(TensorView partial, TensorView bias, TensorView out) override;
  void gather_rows(TensorView mine, TensorView all) override;
  void gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void sum(std::span<float> partial) override;

 private:
  std::vector<size_t> row_cuts(int64_t rows, size_t width) const;
  comm::Communicator& group_;
  bool split_rows_;
};

}  // namespace stoker::parallel
