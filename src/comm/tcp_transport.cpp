#include "comm/tcp_transport.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>

#include "base/clock.h"
#include "comm/stream_transport.h"
#include "comm/tcp_connect.h"

namespace stoker::comm {
namespace {

// What one system call moves at most, so that sending and receiving take turns and what arrives is still in the cache.
constexpr size_t kBite = size_t{256} << 10;

constexpr uint32_t kLastWord = 0x62796521;
constexpr int kWordPatience_ms = 100;  // the sockets of a process that dies close one after the other

struct LastWord {
  uint32_t magic = kLastWord;
  int32_t blames = -1;  // whom its sender held responsible; -1: nobody
};

// What became of a peer.
enum class Fate { kThere, kLeft, kEnded };

// One connection. A receive reads the header of the message behind it in the same call.
struct Connection {
  Descriptor socket, word;
  std::deque<std::shared_ptr<StreamTransfer>> sends, receives;
  MessageHeader arrived;  // of the message that the first receive waits for
  size_t arrived_bytes = 0;
  bool in_over = false, out_over = false;
  std::string why;  // when one of them is
};

class TcpTransport final : public StreamTransport {
 public:
  TcpTransport(const TcpGroup& group, std::vector<Line> lines)
      : StreamTransport(group.rank, group.peers),
        connections_(lines.size()),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wake_.get() < 0) fail(ErrorKind::kDevice, "no file descriptors left for the transport");
    for (size_t r = 0; r < lines.size(); ++r) {
      connections_[r].socket = std::move(lines[r].data);
      connections_[r].word = std::move(lines[r].word);
    }
  }
  ~TcpTransport() override { leave(); }

  std::string name() const override { return "tcp"; }

  Ticket send(int to, uint64_t tag, const void* data, size_t bytes) override {
    auto t = start(to, tag, const_cast<void*>(data), bytes);
    at(to).sends.push_back(t);
    push(at(to));
    return t;
  }
  Ticket receive(int from, uint64_t tag, void* data, size_t bytes) override {
    auto t = start(from, tag, data, bytes);
    at(from).receives.push_back(t);
    return t;
  }

  void wait(const Ticket& ticket, double deadline_s) override {
    auto& t = static_cast<StreamTransfer&>(*ticket);
    while (!t.finished) {
      throw_if_aborted();
      if (move()) continue;
      Connection& c = at(t.peer);
      if (c.in_over || c.out_over) judge(t.peer, c.why);
      const double left = deadline_s - monotonic_s();
      if (left <= 0) judge(t.peer, "gave no answer before the deadline");
      sleep_until_something_moves(left);
    }
  }

  void progress() override { move(); }

  void abort(const std::string& why) override {
    if (!mark_aborted(why)) return;
    leave();  // who waits for this rank learns it now and not at a deadline
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  }

 private:
  Connection& at(int r) { return connections_[static_cast<size_t>(r)]; }

  // The last word, then the end of the line. From any thread, once.
  void leave() {
    if (left_.exchange(true)) return;
    const LastWord word{kLastWord, blames_.load()};
    for (const Connection& c : connections_) {
      if (c.socket.get() < 0) continue;
      (void)!::send(c.word.get(), &word, sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (aborted()) ::shutdown(c.socket.get(), SHUT_RDWR);
    }
  }

  Fate fate(int r, int patience_ms, int* blames) {
    Connection& c = at(r);
    LastWord word;
    pollfd p{c.word.get(), POLLIN, 0};
    if (poll(&p, 1, patience_ms) <= 0) return Fate::kThere;
    if (::recv(c.word.get(), &word, sizeof word, MSG_DONTWAIT | MSG_PEEK) != sizeof word ||
        word.magic != kLastWord)
      return Fate::kEnded;
    *blames = word.blames;
    return Fate::kLeft;
  }

  // What `waited_for` was expected to do did not come. The one to name is a process that ended, whoever was waited for; else whom
  // those that left blame.
  [[noreturn]] void judge(int waited_for, const std::string& what) {
    Connection& c = at(waited_for);
    int blames = -1;
    const Fate its = fate(waited_for, c.in_over || c.out_over ? kWordPatience_ms : 0, &blames);
    if (its == Fate::kEnded) give_up(waited_for, "has ended", true);
    for (int p = 0; p < size(); ++p)
      if (int ignored = -1; p != rank() && p != waited_for && fate(p, 0, &ignored) == Fate::kEnded)
        give_up(p, "has ended", true);
    if (its == Fate::kThere) give_up(waited_for, what);
    if (blames >= 0 && blames < size() && blames != rank() && blames != waited_for)
      give_up(blames, fmt::format("did not answer rank {}, which has left the group", waited_for));
    give_up(waited_for, "has left the group");
  }

  bool push(Connection& c) {
    if (c.sends.empty() || c.out_over) return false;
    StreamTransfer& t = *c.sends.front();
    iovec parts[2];
    msghdr message{};
    message.msg_iov = parts;
    const size_t header_left = sizeof t.header - t.header_done;
    if (header_left > 0)
      parts[message.msg_iovlen++] = {reinterpret_cast<std::byte*>(&t.header) + t.header_done, header_left};
    const size_t bite = std::min(kBite, t.header.bytes - t.done);
    if (bite > 0) parts[message.msg_iovlen++] = {t.data + t.done, bite};
    const ssize_t n = ::sendmsg(c.socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) return false;
      c.out_over = true;
      c.why = "broke the connection: " + std::generic_category().message(errno);
      return false;
    }
    const size_t header_now = std::min(static_cast<size_t>(n), header_left);
    t.header_done += header_now;
    t.done += static_cast<size_t>(n) - header_now;
    if (t.header_done == sizeof t.header && t.done == t.header.bytes) {
      t.finished = true;
      c.sends.pop_front();
    }
    return n > 0;
  }

  bool pull(Connection& c) {
    if (c.receives.empty() || c.in_over) return false;
    const std::shared_ptr<StreamTransfer> held = c.receives.front();
    StreamTransfer& t = *held;
    iovec parts[2];
    msghdr message{};
    message.msg_iov = parts;
    size_t data_wanted = 0;
    if (t.header_done < sizeof(MessageHeader) && c.arrived_bytes == sizeof(MessageHeader)) take_header(c, t);
    if (t.finished) return true;
    if (t.header_done == sizeof(MessageHeader)) {
      data_wanted = std::min(kBite, t.header.bytes - t.done);
      parts[message.msg_iovlen++] = {t.data + t.done, data_wanted};
    }
    if (t.done + data_wanted == t.header.bytes || t.header_done == 0)
      parts[message.msg_iovlen++] = {reinterpret_cast<std::byte*>(&c.arrived) + c.arrived_bytes,
                                     sizeof(MessageHeader) - c.arrived_bytes};
    const ssize_t n = ::recvmsg(c.socket.get(), &message, MSG_DONTWAIT);
    if (n <= 0) {
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
      c.in_over = true;
      c.why = n == 0 ? "closed the connection"
                     : "broke the connection: " + std::generic_category().message(errno);
      return false;
    }
    const size_t data_now = std::min(static_cast<size_t>(n), data_wanted);
    t.done += data_now;
    c.arrived_bytes += static_cast<size_t>(n) - data_now;
    if (t.header_done == sizeof(MessageHeader)) finish_if_whole(c, t);
    return true;
  }

  void take_header(Connection& c, StreamTransfer& t) {
    expect_in_step(t, c.arrived);
    t.header_done = sizeof(MessageHeader);
    c.arrived_bytes = 0;
    finish_if_whole(c, t);
  }
  void finish_if_whole(Connection& c, StreamTransfer& t) {
    if (t.done < t.header.bytes) return;
    t.finished = true;
    c.receives.pop_front();
  }

  bool move() {
    bool moved = false;
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      moved |= push(at(p));
      moved |= pull(at(p));
    }
    return moved;
  }

  void sleep_until_something_moves(double seconds) {
    polled_.assign(1, {wake_.get(), POLLIN, 0});
    for (const Connection& c : connections_) {
      const short events = static_cast<short>((!c.receives.empty() && !c.in_over ? POLLIN : 0) |
                                              (!c.sends.empty() && !c.out_over ? POLLOUT : 0));
      if (events != 0) polled_.push_back({c.socket.get(), events, 0});
    }
    const timespec time{
        static_cast<time_t>(seconds),
        static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
    ppoll(polled_.data(), polled_.size(), &time, nullptr);
  }

  void blame(int culprit) override { blames_ = culprit; }

  std::vector<Connection> connections_;
  Descriptor wake_;
  std::vector<pollfd> polled_;
  std::atomic<int> blames_{-1};
  std::atomic<bool> left_{false};
};

}  // namespace

std::unique_ptr<Transport> make_tcp_transport(const TcpGroup& group, Rendezvous& rendezvous,
                                              double deadline_s) {
  return transport_over(group, connect_all(group, rendezvous, deadline_s));
}

std::unique_ptr<Transport> transport_over(const TcpGroup& group, std::vector<Line> lines) {
  return std::make_unique<TcpTransport>(group, std::move(lines));
}

}  // namespace stoker::comm
