// comm/stream_transport.h
// What transports have in common that lay messages one behind the other in a stream of bytes per peer, header first: the transfer,
// its start, and the end by abort. How the bytes move is theirs.
#pragma once
#include <atomic>
#include <mutex>
#include <vector>

#include "comm/transport.h"

namespace stoker::comm {

struct MessageHeader {
  uint64_t tag = 0;
  uint64_t bytes = 0;
};

struct StreamTransfer final : Transfer {
  MessageHeader header;
  std::byte* data = nullptr;
  size_t header_done = 0, done = 0;
  bool finished = false;
};

class StreamTransport : public Transport {
 public:
  StreamTransport(int rank, std::vector<PeerInfo> peers) : rank_(rank), peers_(std::move(peers)) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(peers_.size()); }
  const PeerInfo& peer(int r) const override { return peers_.at(static_cast<size_t>(r)); }

 protected:
  std::shared_ptr<StreamTransfer> start(int other, uint64_t tag, void* data, size_t bytes);
  void throw_if_aborted();
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  bool mark_aborted(const std::string& why);  // false: it was already
  // The header of what arrived, against the receive that stands first.
  void expect_in_step(const StreamTransfer& expected, const MessageHeader& found);
  [[noreturn]] void give_up(int culprit, const std::string& why, bool ended = false, int64_t missed = -1);
  virtual void blame(int culprit) = 0;  // so that peers who see this rank leave know why

 private:
  int rank_;
  std::vector<PeerInfo> peers_;
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::string why_;
};

}  // namespace stoker::comm
