// comm/transport.h
// The seam below the collectives: messages between the ranks of one generation.
//   send/receive start a transfer and return at once; the memory belongs to the transfer until wait returns.
//   Transfers of one (sender, receiver) pair match in the order they were started; tags must agree, so two
//   ranks that have drifted apart fail instead of exchanging the wrong data.
// Deadlines    wait gives up at an absolute time (monotonic_s). Nothing here blocks longer than that.
// Failures     PeerError naming the rank that was waited for. After one failure the transport is finished:
// drop it Threads      one thread calls send/receive/wait; abort may come from any thread and ends a wait at
// once
// Cost         rings: two copies; tcp: one socket copy each way; gloo: that and the wake-up of its thread
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace stoker::comm {

struct PeerInfo {
  int rank = -1;
  int64_t pid = 0;
  std::string host;
  std::string worker;  // unique within a run, survives a change of rank
};

// "rank 3 (host alpha, pid 4711)"
std::string describe(const PeerInfo& peer);

class PeerError : public Error {
 public:
  PeerError(int peer, const std::string& message, bool ended = false, int64_t missed = -1)
      : Error(ErrorKind::kPeer, message), peer_(peer), ended_(ended), missed_(missed) {}
  int peer() const { return peer_; }     // the rank held responsible; -1: nobody in particular (an abort)
  bool ended() const { return ended_; }  // its process is known to have ended, not only silent
  int64_t missed() const {
    return missed_;
  }  // which of its messages, when a later one came instead; -1: none

 private:
  int peer_;
  bool ended_;
  int64_t missed_;
};

// One message on its way; each transport derives its own.
struct Transfer {
  virtual ~Transfer() = default;
  int peer = -1;
  uint64_t tag = 0;
  int64_t message = -1;  // of a receive: which of that peer's messages, from 0
};
using Ticket = std::shared_ptr<Transfer>;

// How large transfers are best cut: pieces of so many bytes, so many pieces started before the first is waited for. The same on all
// ranks of a generation, since both ends cut alike.
struct Pacing {
  size_t piece_bytes = size_t{512} << 10;
  size_t in_flight = 2;
};

// Where a rank stands in its exchange with the others.
struct Standing {
  static constexpr double kCertain_s = 1e9;
  int waits_on = -1;           // the rank it waits for, or waited for when it failed; -1: nobody
  int64_t message = -1;        // which of that rank's messages; -1: that rank has to take one
  double waited_s = 0;         // until it failed; kCertain_s: a later message came instead
  std::vector<uint64_t> sent;  // messages begun, by rank
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const PeerInfo& peer(int rank) const = 0;
  virtual Ticket send(int to, uint64_t tag, const void* data, size_t bytes) = 0;
  virtual Ticket receive(int from, uint64_t tag, void* data, size_t bytes) = 0;
  virtual void wait(const Ticket& ticket, double deadline_s) = 0;
  virtual void progress() {}  // moves what can move; for transports without a thread of their own
  virtual void abort(const std::string& why) = 0;
  virtual Pacing pacing() const { return {}; }
  virtual Standing standing() const { return {}; }  // of those that keep account (comm/counted_transport.h)
  virtual std::string name() const = 0;             // "memory", "shm", "tcp", "gloo", for messages and traces
};

}  // namespace stoker::comm
