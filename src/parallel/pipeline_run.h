// parallel/pipeline_run.h
// Carries out a pipeline plan: calls the work in its order and moves what flows between neighbours beside it.
// Messages     activations forwards, their gradients backwards, and from the first to the last worker the lookups' gradient of a tied
//              embedding, once per virtual rank. Each worker knows the order in which every other sends (the plans are pure), so it
//              starts receiving in that order, ahead of need; a send never waits: its copy is kept until the plan says that the other
//              side has used it
// Absent       replicas go through the same plan, be they given a virtual rank less: for the micro-batches that a replica does not have
//              it calls absent(), so that what replicas do together comes in one order for all
// Overlap      messages move while this worker waits for another one, and whenever the work calls poll()
// Bits         what is received is what was sent: the result does not depend on timing
// Memory       message_bytes per message kept or ahead: outbox_peak() + inbox_peak(), two or three each way in 1f1b
// Errors       comm::PeerError
#pragma once
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "parallel/pipeline_schedule.h"

namespace stoker::parallel {

// The work itself, for the local chunks 0 .. virtual_stages - 1.
class PipelineWorker {
 public:
  virtual ~PipelineWorker() = default;
  virtual void forward(int chunk, int64_t micro_batch) = 0;
  virtual void backward(int chunk, int64_t micro_batch) = 0;
  virtual void weights(int chunk, int64_t micro_batch) = 0;
  virtual void absent(const PipelineAction& action) = 0;
  virtual std::span<std::byte> input(int chunk, int64_t micro_batch) = 0;  // of forward
  virtual std::span<const std::byte> output(int chunk) = 0;
  virtual std::span<std::byte> gradient(int chunk) = 0;  // backward's input, and afterwards its output
  // Tied embedding: what the first worker has to give after virtual rank `leaf` (counted from 0 within this run), how much the
  // last one expects, and what it does with it (nothing comes for an absent one).
  virtual std::span<const std::byte> lookups(int64_t leaf) = 0;
  virtual size_t lookup_bytes(int64_t leaf) = 0;
  virtual void take_lookups(int64_t leaf, std::span<const std::byte> rows) = 0;
};

class PipelineRun {
 public:
  // leaves: virtual ranks of the plan, of which the first `present` are there, of per_leaf micro-batches each. line: the workers of
  // this pipeline in order; may be null when there is one. lookups: whether the model has a tied embedding.
  PipelineRun(const LayoutSpec& layout, int64_t stage, int64_t leaves, int64_t present, int64_t per_leaf,
              bool lookups, comm::Communicator* line);
  const PipelinePlan& plan() const { return plans_.at(static_cast<size_t>(stage_)); }
  void run(PipelineWorker& worker);
  // The next forward or backward after the action in progress; null after the last one, and outside run().
  const PipelineAction* upcoming() const;
  // Virtual ranks whose lookups the last worker waits for, at the worst.
  static size_t awaited_lookups(const LayoutSpec& layout, int64_t leaves, int64_t per_leaf);
  void poll() {
    if (line_) line_->poll();
  }
  size_t outbox_peak() const { return outbox_peak_; }
  size_t inbox_peak() const { return inbox_peak_; }

 private:
  enum class What { kActivation, kGradient, kLookups };
  struct Key {
    What what;
    int64_t chunk;  // of the whole model, where it is needed; 0 for lookups
    int64_t index;  // micro-batch or leaf
    auto operator<=>(const Key&) const = default;
  };
  struct Message {
    Key key;
    size_t made = 0;  // action of the sender after which it goes
    size_t used = 0;  // action of the receiver that uses it
  };
  struct Sent {
    size_t used;
    comm::Ticket ticket;
    std::vector<std::byte> copy;
  };
  struct Arriving {
    Message message;
    comm::Ticket ticket;
    std::vector<std::byte> data;
  };
  std::vector<Message> messages(int64_t from, int64_t to) const;
  void send(int64_t to, const Key& key, std::span<const std::byte> data);
  void start_receiving(int64_t from, PipelineWorker& worker, const Key* until);
  void receive(int64_t from, const Key& key, std::span<std::byte> into, PipelineWorker& worker);
  void settle(int64_t peer, size_t done);  // the peer has carried out its actions before `done`
  void take_lookups(PipelineWorker& worker, size_t before);
  bool absent(const PipelineAction& action) const { return action.micro_batch >= present_ * per_leaf_; }
  int64_t worker_of(int64_t chunk) const { return chunk % layout_.pipeline; }

  LayoutSpec layout_;
  int64_t stage_, leaves_, present_, per_leaf_;
  bool lookups_;
  comm::Communicator* line_;
  std::vector<PipelinePlan> plans_;
  size_t at_ = ~size_t{0};            // action in progress
  std::vector<size_t> lookups_made_;  // per leaf: the first worker's action
  std::vector<size_t>
      lookups_due_;  // at the last worker, per action: of how many leaves they are known to be made
  int64_t lookups_taken_ = 0;
  std::vector<std::vector<Message>> incoming_, outgoing_;  // per peer, in the order of sending
  std::vector<size_t> started_;                // per peer: how many of incoming_ are being received
  std::vector<std::map<Key, size_t>> use_of_;  // per peer: outgoing_[..].used by key
  std::vector<std::deque<Sent>> outbox_;
  std::vector<std::deque<Arriving>> inbox_;
  size_t message_bytes_ = 0, outbox_peak_ = 0, inbox_peak_ = 0;
};

}  // namespace stoker::parallel
