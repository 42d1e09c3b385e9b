// comm/tcp_connect.h
// Inside the TCP transport: the connections between every two ranks of a generation, made and proven before a deadline.
#pragma once
#include <vector>

#include "comm/tcp_transport.h"

namespace stoker::comm {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

// Two connections for every pair: messages, and a last word that must never be stuck behind half a message.
struct Line {
  Descriptor data, word;
};

// By rank; the own place is empty. All are non-blocking.
std::vector<Line> connect_all(const TcpGroup& group, Rendezvous& rendezvous, double deadline_s);

// The transport over such connections.
std::unique_ptr<Transport> transport_over(const TcpGroup& group, std::vector<Line> lines);

}  // namespace stoker::comm
