// nn/peers.h
// What a layer asks of the workers that compute it together, each a part: the seam between the layers, which know no ranks, and
// parallel, which knows the wires. All members of a group call the same functions in the same order.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "ops/attention.h"
#include "spec/tensor_share.h"

namespace stoker::nn {

// Workers that share the width of a layer (heads, hidden units, vocabulary). Without split_rows each has the whole residual stream;
// with it (sequence parallel) worker t has the rows [t R/n, (t+1) R/n) of the stream and of the norms between the products.
// Messages move beside the work that the caller hands in; what it is given as an empty function is left out.
class TensorPeers {
 public:
  using Rows = std::function<void(int64_t begin, int64_t end)>;
  using Work = std::function<void()>;
  virtual ~TensorPeers() = default;
  virtual TensorPlace place() const = 0;
  virtual bool splits_rows() const = 0;
  // out = the sum of everybody's partial (f32 [R,D], scratch afterwards), plus bias, rounded once: all rows, or this worker's.
  // make fills rows of partial, one worker's at a time and this one's last: what others need leaves at once. beside is done before
  // this worker waits.
  virtual void sum(TensorView partial, const Rows& make, const Work& beside, TensorView bias,
                   TensorView out) = 0;
  // all = everybody's mine. use is told of rows as they come, one worker's at a time and this one's first.
  virtual void gather_rows(TensorView mine, TensorView all, const Rows& use) = 0;
  // The same in two halves; between them no other gathering of rows.
  virtual void send_rows(TensorView mine, TensorView all) = 0;
  virtual void await_rows() = 0;
  virtual void gather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;  // by rank
  virtual void sum(std::span<float> partial) = 0;  // in place, the same on all
};

// Workers that share the tokens of a row (context parallel): attention of this worker's queries over everybody's keys. Arguments are
// those of ops/attention.h for this worker's tokens, but document_start counts in the whole row.
class SequencePeers {
 public:
  virtual ~SequencePeers() = default;
  virtual void attention_forward(ops::Context& context, const ops::AttentionForward& args) = 0;
  virtual void attention_backward(ops::Context& context, const ops::AttentionBackward& args) = 0;
};

}  // namespace stoker::nn
