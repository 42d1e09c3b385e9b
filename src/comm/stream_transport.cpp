#include "comm/stream_transport.h"

namespace stoker::comm {

std::shared_ptr<StreamTransfer> StreamTransport::start(int other, uint64_t tag, void* data, size_t bytes) {
  STOKER_CHECK(other >= 0 && other < size() && other != rank(), "rank {} exchanges with {}", rank(), other);
  throw_if_aborted();
  auto t = std::make_shared<StreamTransfer>();
  t->peer = other;
  t->tag = tag;
  t->header = {tag, bytes};
  t->data = static_cast<std::byte*>(data);
  return t;
}

void StreamTransport::throw_if_aborted() {
  if (!aborted()) return;
  std::lock_guard lock(mutex_);
  throw PeerError(-1, why_);
}

void StreamTransport::expect_in_step(const StreamTransfer& expected, const MessageHeader& found) {
  if (found.tag == expected.tag && found.bytes == expected.header.bytes) return;
  give_up(expected.peer,
          fmt::format("is out of step: expected message {:#x} of {} bytes, found {:#x} of {} bytes",
                      expected.tag, expected.header.bytes, found.tag, found.bytes),
          false, expected.message);
}

void StreamTransport::give_up(int culprit, const std::string& why, bool ended, int64_t missed) {
  blame(culprit);
  throw PeerError(culprit, fmt::format("{} {}", describe(peer(culprit)), why), ended, missed);
}

bool StreamTransport::mark_aborted(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (aborted()) return false;
  why_ = why;
  aborted_.store(true, std::memory_order_release);
  return true;
}

}  // namespace stoker::comm
