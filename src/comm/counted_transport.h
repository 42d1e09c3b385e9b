// comm/counted_transport.h
// Keeps account of what passes: how many messages this rank has begun to send to each other one, and which message of whom it
// waits for. Two ranks' accounts together tell whether a message that is missed was ever sent (elastic/blame.h).
// Threads      send, receive, wait: one thread; standing: that thread
#pragma once
#include <memory>
#include <vector>

#include "comm/transport.h"

namespace stoker::comm {

class CountedTransport final : public Transport {
 public:
  explicit CountedTransport(std::unique_ptr<Transport> inner);
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const PeerInfo& peer(int r) const override { return inner_->peer(r); }
  Pacing pacing() const override { return inner_->pacing(); }
  std::string name() const override { return inner_->name(); }
  Ticket send(int to, uint64_t tag, const void* data, size_t bytes) override;
  Ticket receive(int from, uint64_t tag, void* data, size_t bytes) override;
  void wait(const Ticket& ticket, double deadline_s) override;
  void progress() override;
  void abort(const std::string& why) override { inner_->abort(why); }
  Standing standing() const override { return standing_; }

 private:
  void missed(const PeerError& error);
  std::unique_ptr<Transport> inner_;
  std::vector<int64_t> received_;
  Standing standing_;
};

}  // namespace stoker::comm
