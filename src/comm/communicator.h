// comm/communicator.h
// Collectives between the ranks of one generation. Every rank calls the same collectives in the same
// order with the same sizes; a rank that does not is found out and named.
// Shapes     flat spans; floats are f32, everything else is bytes
// Numbers    sums of floats follow the tree of comm/tree.h: the same bits on every rank, for every
//            transport, and for tree_* for every number of workers. Small all_reduce (doubles, int64)
//            folds in rank order.
// Writes     only the output span named in the call; inputs of tree_* are scratch afterwards
// Deadline   timeout_s per call, counted from the call; 0 takes the communicator's own (set_timeout)
// Errors     Peer: names the collective, its number, the generation and the rank, host and pid held
//            responsible. After one failure every further call fails with the same error: drop the
//            communicator, rejoin. Usage: spans disagree with the call
// Threads    one caller at a time; abort() from any thread
// Cost       n ranks, S bytes: broadcast S*log2(n) over the slowest link; all_gather S;
//            tree_all_reduce 2*S*(n-1)/n when every worker holds one subtree, plus S/n per further
//            subtree
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/flight_recorder.h"
#include "comm/transport.h"
#include "comm/tree.h"

namespace stoker::comm {

enum class Reduce { kSum, kMax, kMin };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual uint64_t generation() const = 0;
  virtual const PeerInfo& peer(int rank) const = 0;
  virtual std::string transport() const = 0;
  virtual void set_timeout(double timeout_s) = 0;
  virtual void abort(const std::string& why) = 0;
  virtual FlightRecorder& recorder() = 0;
  virtual Standing standing() const = 0;  // from the caller's thread
  // Seconds spent inside collectives and bytes this rank sent, since the start.
  virtual double busy_s() const = 0;
  virtual uint64_t bytes_sent() const = 0;

  virtual void barrier(double timeout_s = 0) = 0;
  virtual void broadcast(std::span<std::byte> data, int root, double timeout_s = 0) = 0;
  // out holds size() blocks of in.size() bytes, by rank.
  virtual void all_gather(std::span<const std::byte> in, std::span<std::byte> out, double timeout_s = 0) = 0;
  // data already holds this rank's part [begins[rank], begins[rank+1]); begins has size()+1 entries, in
  // bytes.
  virtual void all_gather_parts(std::span<std::byte> data, std::span<const size_t> begins,
                                double timeout_s = 0) = 0;
  virtual void all_reduce(std::span<double> data, Reduce op, double timeout_s = 0) = 0;
  virtual void all_reduce(std::span<int64_t> data, Reduce op, double timeout_s = 0) = 0;
  virtual void send(std::span<const std::byte> data, int to, double timeout_s = 0) = 0;
  virtual void receive(std::span<std::byte> data, int from, double timeout_s = 0) = 0;
  // Both at once, so that neighbours in a ring cannot block each other.
  virtual void exchange(std::span<const std::byte> out, int to, std::span<std::byte> in, int from,
                        double timeout_s = 0) = 0;

  // Beside the collectives: messages that both ends start in the same order per direction, each waited for where its
  // data is needed. The memory belongs to the message until await() returns. They move whenever this rank waits for
  // anything, and in poll(), which computing code may call now and then and which never waits.
  virtual Ticket post_send(std::span<const std::byte> data, int to) = 0;
  virtual Ticket post_receive(std::span<std::byte> data, int from) = 0;
  virtual void await(const Ticket& ticket, double timeout_s = 0) = 0;
  virtual void poll() = 0;

  // A communicator of some ranks of this one, in the order given (this rank among them), over the same connections;
  // must not outlive it. Errors name peers by this one's ranks. Every member makes its subgroups in any order, but calls
  // on groups that share two ranks must come in the same order on both.
  virtual std::unique_ptr<Communicator> subgroup(std::vector<int> ranks) = 0;

  // Sums V leaves held by the ranks as spans[r] (contiguous, in order). partials: this rank's complete
  // subtrees, each `elements` floats (TreeAccumulator::partials). all_reduce: out has `elements` floats on
  // every rank (may be partials[0]). cuts: size()+1 offsets, which rank owns what; empty: shard_of. reduce_scatter: out has shard_of(elements, size, rank).size() floats.
  virtual void tree_all_reduce(std::span<float* const> partials, size_t elements,
                               std::span<const LeafSpan> spans, float* out, std::span<const size_t> cuts = {},
                               double timeout_s = 0) = 0;
  virtual void tree_reduce_scatter(std::span<float* const> partials, size_t elements,
                                   std::span<const LeafSpan> spans, float* out,
                                   std::span<const size_t> cuts = {}, double timeout_s = 0) = 0;
  // One leaf per rank.
  void all_reduce(std::span<float> data, double timeout_s = 0);
  void reduce_scatter(std::span<float> data, std::span<float> out, double timeout_s = 0);
};

// recorder: not owned, may outlive generations; null: the communicator keeps its own in memory.
std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Transport> transport, uint64_t generation,
                                                double timeout_s, FlightRecorder* recorder = nullptr);

// Which leaves each of n workers holds, by leaves_of.
std::vector<LeafSpan> even_spans(int workers, int virtual_ranks);

}  // namespace stoker::comm
