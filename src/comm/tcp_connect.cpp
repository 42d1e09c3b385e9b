#include "comm/tcp_connect.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <thread>

#include "base/clock.h"
#include "net/greeting.h"
#include "net/rpc.h"

namespace stoker::comm {
namespace {

constexpr size_t kMostUnproven = 64;  // strangers that hold a connection open and say nothing
constexpr double kRetry_s = 0.05;
constexpr uint32_t kWord = uint32_t{1} << 31;  // set in the caller's number: the connection for last words

std::string message_of(int error) { return std::generic_category().message(error); }

struct AddressInfo {
  addrinfo* list = nullptr;
  AddressInfo(const std::string& host, int port, bool to_listen) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = to_listen ? AI_PASSIVE : 0;
    const int e = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
    if (e != 0) throw PeerError(-1, fmt::format("the address {} cannot be used: {}", host, gai_strerror(e)));
  }
  ~AddressInfo() { freeaddrinfo(list); }
  AddressInfo(const AddressInfo&) = delete;
};

Descriptor listen_at(const std::string& host, int* port) {
  const AddressInfo found(host, 0, true);
  Descriptor s(socket(found.list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  if (s.get() < 0 || bind(s.get(), found.list->ai_addr, found.list->ai_addrlen) != 0 ||
      listen(s.get(), SOMAXCONN) != 0 || getsockname(s.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0)
    throw PeerError(-1, fmt::format("cannot listen on {}: {}. Is it an address of this machine?", host,
                                    message_of(errno)));
  *port = ntohs(own.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(own).sin6_port
                                          : reinterpret_cast<sockaddr_in&>(own).sin_port);
  return s;
}

// Whether the socket became ready before the deadline.
bool ready(int fd, short what, double deadline_s) {
  for (;;) {
    pollfd p{fd, what, 0};
    const double left = deadline_s - monotonic_s();
    const int n = poll(&p, 1, std::max(0, static_cast<int>(left * 1e3)));
    if (n > 0) return true;
    if (n == 0 && left <= 0) return false;
  }
}

bool send_all(int fd, std::string_view text, double deadline_s) {
  while (!text.empty()) {
    const ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) text.remove_prefix(static_cast<size_t>(n));
    else if (errno != EAGAIN && errno != EINTR) return false;
    else if (!ready(fd, POLLOUT, deadline_s)) return false;
  }
  return true;
}

bool receive_all(int fd, std::string& text, size_t bytes, double deadline_s) {
  while (text.size() < bytes) {
    char buffer[64];
    const ssize_t n = ::recv(fd, buffer, std::min(sizeof buffer, bytes - text.size()), MSG_DONTWAIT);
    if (n > 0) text.append(buffer, static_cast<size_t>(n));
    else if (n == 0 || (errno != EAGAIN && errno != EINTR)) return false;
    else if (!ready(fd, POLLIN, deadline_s)) return false;
  }
  return true;
}

void set_up(int fd) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

// One try; what went wrong in `why`.
Descriptor dial(const TcpGroup& group, const net::Address& address, int to, uint32_t kind, double deadline_s,
                std::string* why) {
  const AddressInfo found(address.host, address.port, false);
  Descriptor s(socket(found.list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto give_up = [&](const std::string& reason) {
    *why = reason;
    return Descriptor();
  };
  if (s.get() < 0) return give_up(message_of(errno));
  if (::connect(s.get(), found.list->ai_addr, found.list->ai_addrlen) != 0 && errno != EINPROGRESS)
    return give_up(message_of(errno));
  int error = 0;
  socklen_t size = sizeof error;
  if (!ready(s.get(), POLLOUT, deadline_s)) return give_up("no answer");
  if (getsockopt(s.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0)
    return give_up(message_of(error));
  set_up(s.get());
  net::Greeting greeting(group.secret, group.prefix, static_cast<uint32_t>(group.rank) | kind);
  std::string answer;
  if (!send_all(s.get(), greeting.call(static_cast<uint32_t>(to)), deadline_s) ||
      !receive_all(s.get(), answer, net::Greeting::kAnswerBytes, deadline_s))
    return give_up("it answered no greeting");
  const auto proof = greeting.prove(answer);
  if (!proof) return give_up("whoever listens there does not hold this run's token");
  if (!send_all(s.get(), *proof, deadline_s)) return give_up("it hung up");
  return s;
}

// A connection that came in and has not proven yet who it is.
struct Caller {
  Descriptor socket;
  net::Greeting greeting;
  std::string text;
  bool answered = false;
};

enum class Step { kWait, kStranger, kProven };

Step hear(Caller& caller, double deadline_s) {
  for (;;) {
    const size_t wanted = caller.answered ? net::Greeting::kProofBytes : net::Greeting::kCallBytes;
    while (caller.text.size() < wanted) {
      char buffer[64];
      const ssize_t n = ::recv(caller.socket.get(), buffer, wanted - caller.text.size(), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Step::kWait;
      if (n <= 0) return Step::kStranger;
      caller.text.append(buffer, static_cast<size_t>(n));
    }
    if (caller.answered) return caller.greeting.accept(caller.text) ? Step::kProven : Step::kStranger;
    const auto answer = caller.greeting.answer(caller.text);
    if (!answer || !send_all(caller.socket.get(), *answer, deadline_s)) return Step::kStranger;
    caller.answered = true;
    caller.text.clear();
  }
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}
Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
  }
  return *this;
}

// Each rank dials the lower ones and is dialled by the higher ones: rank 0 waits for nobody before it listens, so no circle can form.
std::vector<Line> connect_all(const TcpGroup& group, Rendezvous& rendezvous, double deadline_s) {
  const auto n = group.peers.size(), me = static_cast<size_t>(group.rank);
  std::vector<Line> out(n);
  if (n < 2) return out;
  int port = 0;
  const Descriptor listener = listen_at(group.address, &port);
  const auto key = [&](size_t r) { return fmt::format("{}/tcp/{}", group.prefix, r); };
  rendezvous.set(key(me), net::Address{group.address, port}.text());
  for (size_t r = 0; r < me; ++r) {
    const net::Address address = net::parse_address(rendezvous.get(key(r), deadline_s));
    for (const uint32_t kind : {uint32_t{0}, kWord}) {
      std::string why, why_now;
      Descriptor& made = kind == 0 ? out[r].data : out[r].word;
      for (;;) {
        made = dial(group, address, static_cast<int>(r), kind, deadline_s, &why_now);
        if (made.get() >= 0) break;
        // A try that the deadline cut short says less than one that came to its end before.
        if (why.empty() || monotonic_s() < deadline_s) why = why_now;
        if (monotonic_s() + kRetry_s >= deadline_s)
          throw PeerError(
              static_cast<int>(r),
              fmt::format("{} cannot be reached at {}: {}. Can the hosts reach each other on any TCP port?",
                          describe(group.peers[r]), address.text(), why));
        std::this_thread::sleep_for(std::chrono::duration<double>(kRetry_s));
      }
    }
  }
  std::deque<Caller> callers;
  for (;;) {
    size_t absent = me + 1;
    while (absent < n && out[absent].data.get() >= 0 && out[absent].word.get() >= 0) ++absent;
    if (absent == n) return out;
    std::vector<pollfd> polled{{listener.get(), POLLIN, 0}};
    for (const Caller& c : callers) polled.push_back({c.socket.get(), POLLIN, 0});
    const double left = deadline_s - monotonic_s();
    if (left <= 0)
      throw PeerError(static_cast<int>(absent),
                      fmt::format("{} did not connect in time", describe(group.peers[absent])));
    if (poll(polled.data(), polled.size(), static_cast<int>(left * 1e3) + 1) <= 0) continue;
    for (size_t i = callers.size(); i-- > 0;) {
      if (polled[i + 1].revents == 0) continue;
      const Step step = hear(callers[i], deadline_s);
      if (step == Step::kWait) continue;
      const size_t from = callers[i].greeting.caller() & ~kWord;
      const bool word = (callers[i].greeting.caller() & kWord) != 0;
      // Who lost its connection and dials again replaces it.
      if (step == Step::kProven && from > me && from < n)
        (word ? out[from].word : out[from].data) = std::move(callers[i].socket);
      callers.erase(callers.begin() + static_cast<int64_t>(i));
    }
    if (polled[0].revents != 0) {
      Descriptor s(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (s.get() < 0) continue;
      set_up(s.get());
      if (callers.size() >= kMostUnproven) callers.pop_front();
      callers.push_back(
          {std::move(s), net::Greeting(group.secret, group.prefix, static_cast<uint32_t>(me)), {}});
    }
  }
}

}  // namespace stoker::comm
