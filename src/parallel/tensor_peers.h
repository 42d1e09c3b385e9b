// parallel/tensor_peers.h
// The workers of one tensor-parallel group over their communicator (nn/peers.h says what layers ask of them).
// Numbers      sums are f32 in the order of comm/tree.h over the workers, then rounded once to the type of the result. A product whose
//              inner dimension is cut into n parts is so the single worker's but for the order of its f32 additions
// Determinism  the same number of workers -> the same bits on every worker, with and without split rows
// Beside       rows of a sum leave in pieces as they are made, rows that are gathered are used piece by piece as they come, this worker's
//              own while the others' are on their way. Messages move in every call here and after every piece; between calls as far as
//              the transport moves them alone
// Cost         a sum moves 4 R D (n-1)/n bytes a worker, and without split rows those of the rounded result; gathered rows their own size
// Memory       memory_bytes() of what arrives to be summed, kept
// Errors       comm::PeerError
#pragma once
#include <vector>

#include "comm/communicator.h"
#include "nn/peers.h"

namespace stoker::parallel {

class CommTensorPeers final : public nn::TensorPeers {
 public:
  CommTensorPeers(comm::Communicator& group, bool split_rows);
  static size_t memory_bytes(int64_t rows, int64_t width, int64_t workers);
  TensorPlace place() const override { return {group_.size(), group_.rank()}; }
  bool splits_rows() const override { return split_rows_; }
  void sum(TensorView partial, const Rows& make, const Work& beside, TensorView bias,
           TensorView out) override;
  void gather_rows(TensorView mine, TensorView all, const Rows& use) override;
  void send_rows(TensorView mine, TensorView all) override;
  void await_rows() override;
  void gather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void sum(std::span<float> partial) override;

 private:
  struct Stretch {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };
  Stretch rows_of(int64_t rows, int worker) const;
  std::vector<Stretch> pieces_of(int64_t rows, int worker) const;
  int before(int hops) const { return (group_.rank() + group_.size() - hops) % group_.size(); }
  int after(int hops) const { return (group_.rank() + hops) % group_.size(); }
  void send_out(TensorView all);
  void await(std::vector<comm::Ticket>& tickets);

  comm::Communicator& group_;
  bool split_rows_;
  std::vector<comm::Fold> folds_;             // of the workers' partials
  std::vector<float> arrived_;                // of a sum: by hops
  std::vector<comm::Ticket> coming_, going_;  // of gathered rows; coming by hops
  TensorView all_;                            // where to; empty: none under way
};

}  // namespace stoker::parallel
