// comm/fault_transport.h
// A transport that misbehaves on purpose, for tests and `stoker chaos`: it counts the messages its rank
// starts and, from a chosen one on, does what the fault says. Everything else passes through.
#pragma once
#include <atomic>
#include <memory>

#include "comm/transport.h"

namespace stoker::comm {

enum class FaultKind {
  kNone,
  kDrop,      // the message is swallowed, its sender believes that it went
  kDelay,     // the message goes delay_s late
  kHang,      // this rank stops for good in the middle of the call (until its own deadline)
  kHalfOpen,  // from here on nothing leaves and nothing arrives, and no error shows
  kFlipBit,   // one bit of a sent message is flipped
  kSlow,      // every message from here on goes delay_s late
};

struct Fault {
  FaultKind kind = FaultKind::kNone;
  int64_t at_message = 0;  // counts this rank's sends and receives from 0
  double delay_s = 0;
  uint64_t bit = 0;  // kFlipBit: modulo the size of the message
};

class FaultTransport final : public Transport {
 public:
  FaultTransport(std::unique_ptr<Transport> inner, Fault fault);
  ~FaultTransport() override;
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const PeerInfo& peer(int r) const override { return inner_->peer(r); }
  Pacing pacing() const override { return inner_->pacing(); }
  std::string name() const override { return inner_->name() + "+fault"; }
  Ticket send(int to, uint64_t tag, const void* data, size_t bytes) override;
  Ticket receive(int from, uint64_t tag, void* data, size_t bytes) override;
  void wait(const Ticket& ticket, double deadline_s) override;
  void progress() override { inner_->progress(); }
  void abort(const std::string& why) override;

  bool fired() const { return fired_; }
  void arm(Fault fault);  // counts from the next message

 private:
  struct Held;
  enum class Verdict { kPass, kSwallow, kStuck, kFlip };
  Verdict judge(bool is_send, size_t bytes);
  std::unique_ptr<Transport> inner_;
  Fault fault_;
  int64_t messages_ = 0;
  bool fired_ = false;
  std::atomic<bool> aborted_{false};
};

}  // namespace stoker::comm
