// parallel/ring_attention.h
// Attention over a row whose tokens are shared by n workers in a ring (context parallel): keys and values travel round it, each
// worker's queries meet them one worker's share at a time, and what they saw is merged by its log-sum-exp.
// Share        the row is cut into 2n stretches; worker c has stretches c and 2n-1-c, so that with the causal mask each meeting of two
//              workers is the same work: two stretches (its own: two halves and one)
// Order        a worker meets its own keys first, then those of the workers before it in the ring, each time one further; gradients of
//              keys travel with them and are added to in the same order, ending at home
// Numbers      outputs and gradients are merged in f32 and rounded once to the type of the inputs
// Determinism  the same n -> the same bits
// Memory       memory_bytes() of f32 sums and of two workers' keys and values; the constructor takes it
// Cost         forward 2 K Dh T/n elements a meeting, n-1 times; backward that and twice as much in f32. Messages move while this worker
//              waits and between stretches
// Errors       Usage: the row is not a multiple of 2n. comm::PeerError
// Source       Liu et al. 2023, arXiv:2310.01889; the balanced order: Brandon et al. 2023, arXiv:2311.09431
#pragma once
#include <array>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "nn/peers.h"
#include "tensor/buffer.h"

namespace stoker::parallel {

struct RingStretch {
  int64_t begin = 0, end = 0;  // positions in the row
  bool operator==(const RingStretch&) const = default;
};
// length: of the whole row.
std::array<RingStretch, 2> ring_share(int64_t length, int64_t workers, int64_t rank);
// The values of a worker's tokens, row after row.
void take_ring_share(std::span<const int32_t> rows, int64_t length, int64_t workers, int64_t rank,
                     std::vector<int32_t>& out);

struct RingShape {
  int64_t rows = 0, length = 0;  // length: of the whole row
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  Dtype dtype = Dtype::kF32;
  bool training = true;
};

class RingAttention final : public nn::SequencePeers {
 public:
  RingAttention(comm::Communicator& ring, const RingShape& shape);
  static size_t memory_bytes(const RingShape& shape, int64_t workers);
  void attention_forward(ops::Context& context, const ops::AttentionForward& args) override;
  void attention_backward(ops::Context& context, const ops::AttentionBackward& args) override;

 private:
  struct Memory {
    TensorView sums;       // f32 [B,T/n,H,Dh]: outputs, or gradients of queries
    TensorView pairs[2];   // [B,T/n,2K,Dh]
    TensorView dpairs[2];  // f32
  };
  static Memory take_memory(Arena& arena, const RingShape& shape, int64_t workers);
  void pack_pairs(const TensorView& qkv) const;
  // step(owner, which of pairs) for every worker's keys; before each but the first they have been received.
  template <typename Step>
  void go_round(const Step& step);
  // each(stretch) of this worker's queries and that owner's keys that see one another
  template <typename Args, typename Each>
  void meetings(const Args& args, const TensorView& pairs, int owner, const Each& each);

  comm::Communicator& ring_;
  RingShape shape_;
  Arena arena_;
  Memory m_;
};

}  // namespace stoker::parallel
