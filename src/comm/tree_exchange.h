// comm/tree_exchange.h
// Inside the communicator: Wire (the messages of one collective call, with its deadline) and TreeExchange
// (the canonical tree sum over workers, cut into chunks so that moving, folding and gathering overlap).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/flight_recorder.h"
#include "comm/transport.h"
#include "comm/tree.h"

namespace stoker::comm {

class Wire {
 public:
  void open(Transport& transport, FlightRecorder& recorder, uint64_t sequence, double deadline_s);
  void close();
  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  Ticket send(int to, const void* data, size_t bytes);
  Ticket receive(int from, void* data, size_t bytes);
  void wait(const Ticket& ticket);
  void wait_all();  // everything started since open

  Pacing pacing() const { return transport_->pacing(); }

  uint64_t bytes_sent = 0;

 private:
  Transport* transport_ = nullptr;
  FlightRecorder* recorder_ = nullptr;
  uint64_t sequence_ = 0;
  double deadline_s_ = 0;
  std::vector<uint32_t> sent_, received_;  // messages of this call per peer: part of the tag
  std::vector<Ticket> pending_;
};

class TreeExchange {
 public:
  TreeExchange(std::span<float* const> partials, size_t elements, std::span<const LeafSpan> spans,
               std::span<const size_t> cuts, int rank);
  void all_reduce(Wire& wire, float* out);
  void reduce_scatter(Wire& wire, float* out);

 private:
  struct Slot {  // one part of the tree: who holds it, and which of its partials it is
    int holder;
    int index;
  };
  void run(Wire& wire, float* out, bool gather);
  void start_chunk(Wire& wire, size_t chunk);
  void fold_chunk(Wire& wire, size_t chunk, float* out, bool gather);
  Shard shard(int owner) const {
    return {cuts_[static_cast<size_t>(owner)], cuts_[static_cast<size_t>(owner) + 1]};
  }
  Shard chunk_of(int owner, size_t chunk) const;

  std::span<float* const> partials_;
  size_t elements_;
  int rank_, workers_;
  std::vector<size_t> cuts_;
  std::vector<Slot> slots_;
  std::vector<Fold> folds_;
  std::vector<int> parts_of_;  // how many subtrees each worker holds
  size_t chunk_elements_ = 0, in_flight_ = 2;
  std::vector<std::vector<float>> scratch_;    // per chunk in flight: remote partials of my shard
  std::vector<std::vector<Ticket>> arriving_;  // per chunk in flight
};

}  // namespace stoker::comm
