#include "comm/fault_transport.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace stoker::comm {

// A transfer that the fault keeps from its way, or whose bytes it changed.
struct FaultTransport::Held final : Transfer {
  Ticket inner;  // null: never reaches the wire
  bool stuck = false;
  std::vector<std::byte> changed;
};

FaultTransport::FaultTransport(std::unique_ptr<Transport> inner, Fault fault)
    : inner_(std::move(inner)), fault_(fault) {}
FaultTransport::~FaultTransport() = default;

void FaultTransport::arm(Fault fault) {
  fault_ = fault;
  messages_ = 0;
  fired_ = false;
}

FaultTransport::Verdict FaultTransport::judge(bool is_send, size_t bytes) {
  const int64_t now = messages_++;
  const bool exactly = now == fault_.at_message, since = now >= fault_.at_message;
  const auto fire = [&](bool yes, Verdict verdict) {
    fired_ |= yes;
    return yes ? verdict : Verdict::kPass;
  };
  switch (fault_.kind) {
    case FaultKind::kNone:
      return Verdict::kPass;
    case FaultKind::kDrop:
      return fire(is_send && since && !fired_, Verdict::kSwallow);
    case FaultKind::kDelay:
    case FaultKind::kSlow:
      if (fault_.kind == FaultKind::kSlow ? since : exactly) {
        fired_ = true;
        std::this_thread::sleep_for(std::chrono::duration<double>(fault_.delay_s));
      }
      return Verdict::kPass;
    case FaultKind::kHang:
      return fire(since, Verdict::kStuck);
    case FaultKind::kHalfOpen:
      return fire(since, is_send ? Verdict::kSwallow : Verdict::kStuck);
    case FaultKind::kFlipBit:
      return fire(is_send && since && bytes > 0 && !fired_, Verdict::kFlip);
  }
  return Verdict::kPass;
}

Ticket FaultTransport::send(int to, uint64_t tag, const void* data, size_t bytes) {
  const Verdict verdict = judge(true, bytes);
  if (verdict == Verdict::kPass) return inner_->send(to, tag, data, bytes);
  auto held = std::make_shared<Held>();
  held->peer = to;
  held->tag = tag;
  held->stuck = verdict == Verdict::kStuck;
  if (verdict == Verdict::kFlip) {
    const auto* from = static_cast<const std::byte*>(data);
    held->changed.assign(from, from + bytes);
    const uint64_t bit = fault_.bit % (bytes * 8);
    held->changed[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    held->inner = inner_->send(to, tag, held->changed.data(), bytes);
  }
  return held;
}

Ticket FaultTransport::receive(int from, uint64_t tag, void* data, size_t bytes) {
  if (judge(false, bytes) == Verdict::kPass) return inner_->receive(from, tag, data, bytes);
  auto held = std::make_shared<Held>();
  held->peer = from;
  held->tag = tag;
  held->stuck = true;
  return held;
}

void FaultTransport::wait(const Ticket& ticket, double deadline_s) {
  const auto* held = dynamic_cast<const Held*>(ticket.get());
  if (held == nullptr) return inner_->wait(ticket, deadline_s);
  if (held->inner) return inner_->wait(held->inner, deadline_s);
  if (!held->stuck) return;
  while (!aborted_.load() && monotonic_s() < deadline_s)
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(0.005, deadline_s - monotonic_s())));
  const std::string why = fmt::format("{} gave no answer before the deadline", describe(peer(held->peer)));
  if (!aborted_.load()) inner_->abort(why);
  throw PeerError(aborted_.load() ? -1 : held->peer, aborted_.load() ? "aborted" : why);
}

void FaultTransport::abort(const std::string& why) {
  aborted_ = true;
  inner_->abort(why);
}

}  // namespace stoker::comm
