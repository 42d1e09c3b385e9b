// What another worker's connection may bring once it has proven the token: message headers, data and a last word, cut anywhere. Each
// receive ends with its bytes or with an error that names the peer; nothing is written beyond what was asked for.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "comm/tcp_connect.h"

namespace {

struct Pair {
  stoker::comm::Descriptor near, far;
};

// The far end has said `bytes` and hung up. Beyond what a socket holds the rest is dropped.
Pair said(std::string_view bytes) {
  std::array<int, 2> fds{};
  STOKER_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data()) == 0, "no sockets left");
  Pair out{stoker::comm::Descriptor(fds[0]), stoker::comm::Descriptor(fds[1])};
  if (!bytes.empty()) (void)!write(fds[1], bytes.data(), bytes.size());
  shutdown(fds[1], SHUT_WR);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::comm;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t last_word = size == 0 ? 0 : std::min<size_t>(data[0] % 16, size - 1);
  if (size > 0) text.remove_prefix(1);
  Pair word = said(text.substr(0, last_word)), stream = said(text.substr(last_word));
  std::vector<Line> lines(2);
  lines[1] = {std::move(stream.near), std::move(word.near)};
  const auto transport =
      transport_over({"run/7", 0, {{0, 1, "here", "w0"}, {1, 2, "there", "w1"}}, "", ""}, std::move(lines));
  std::vector<std::vector<std::byte>> into;
  std::vector<Ticket> tickets;
  try {
    for (const size_t bytes : {size_t{0}, size_t{5}, size_t{16}, size_t{300}}) {
      into.emplace_back(bytes);
      tickets.push_back(transport->receive(1, tickets.size(), into.back().data(), bytes));
    }
    for (const Ticket& ticket : tickets) transport->wait(ticket, stoker::monotonic_s() + 10);
  } catch (const PeerError& e) {
    STOKER_CHECK(e.peer() == 1, "rank {} was named", e.peer());
  }
  return 0;
}
