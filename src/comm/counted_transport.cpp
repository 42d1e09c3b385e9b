#include "comm/counted_transport.h"

#include "base/clock.h"

namespace stoker::comm {

CountedTransport::CountedTransport(std::unique_ptr<Transport> inner)
    : inner_(std::move(inner)), received_(static_cast<size_t>(inner_->size()), 0) {
  standing_.sent.assign(received_.size(), 0);
}

// Counted before it starts: a send that never comes back has still been begun.
Ticket CountedTransport::send(int to, uint64_t tag, const void* data, size_t bytes) {
  ++standing_.sent.at(static_cast<size_t>(to));
  return inner_->send(to, tag, data, bytes);
}

Ticket CountedTransport::receive(int from, uint64_t tag, void* data, size_t bytes) {
  Ticket ticket = inner_->receive(from, tag, data, bytes);
  ticket->message = received_.at(static_cast<size_t>(from))++;
  return ticket;
}

// What a wait was for stays on record when it fails.
void CountedTransport::wait(const Ticket& ticket, double deadline_s) {
  standing_.waits_on = ticket->peer;
  standing_.message = ticket->message;
  const double since_s = monotonic_s();
  try {
    inner_->wait(ticket, deadline_s);
  } catch (const PeerError& e) {
    standing_.waited_s = monotonic_s() - since_s;
    missed(e);
    throw;
  }
  standing_.waits_on = -1;
}

void CountedTransport::progress() {
  try {
    inner_->progress();
  } catch (const PeerError& e) {
    missed(e);
    throw;
  }
}

// Whatever was waited for: a later message in place of one shows that this one is lost.
void CountedTransport::missed(const PeerError& error) {
  if (error.missed() >= 0) standing_ = {error.peer(), error.missed(), Standing::kCertain_s, standing_.sent};
}

}  // namespace stoker::comm
