#include "comm/tree_exchange.h"

#include <algorithm>
#include <cstring>

namespace stoker::comm {
namespace {
constexpr size_t kScratchBytes = size_t{16} << 20;  // of all remote partials in flight
constexpr size_t kFoldElements =
    1024;  // of each part at a time: what one addition made is in the cache for the next
}  // namespace

void Wire::open(Transport& transport, FlightRecorder& recorder, uint64_t sequence, double deadline_s) {
  transport_ = &transport;
  recorder_ = &recorder;
  sequence_ = sequence;
  deadline_s_ = deadline_s;
  pending_.clear();
  sent_.assign(static_cast<size_t>(transport.size()), 0);
  received_.assign(static_cast<size_t>(transport.size()), 0);
}

void Wire::close() { pending_.clear(); }

Ticket Wire::send(int to, const void* data, size_t bytes) {
  bytes_sent += bytes;
  pending_.push_back(transport_->send(to, sequence_ << 24 | sent_[static_cast<size_t>(to)]++, data, bytes));
  return pending_.back();
}
Ticket Wire::receive(int from, void* data, size_t bytes) {
  pending_.push_back(
      transport_->receive(from, sequence_ << 24 | received_[static_cast<size_t>(from)]++, data, bytes));
  return pending_.back();
}
void Wire::wait(const Ticket& ticket) {
  recorder_->waiting_on(ticket->peer);
  transport_->wait(ticket, deadline_s_);
}
void Wire::wait_all() {
  for (const Ticket& ticket : pending_) wait(ticket);
  pending_.clear();
}

TreeExchange::TreeExchange(std::span<float* const> partials, size_t elements, std::span<const LeafSpan> spans,
                           std::span<const size_t> cuts, int rank)
    : partials_(partials),
      elements_(elements),
      rank_(rank),
      workers_(static_cast<int>(spans.size())),
      cuts_(cuts.begin(), cuts.end()) {
  if (cuts_.empty()) {
    for (int w = 0; w < workers_; ++w) cuts_.push_back(shard_of(elements, workers_, w).begin);
    cuts_.push_back(elements);
  }
  if (cuts_.size() != spans.size() + 1 || cuts_.front() != 0 || cuts_.back() != elements ||
      !std::is_sorted(cuts_.begin(), cuts_.end()))
    fail(ErrorKind::kUsage, "tree sum: expected {} rising cuts from 0 to {}, found {}", spans.size() + 1,
         elements, cuts_.size());
  const int virtual_ranks = spans.empty() ? 0 : spans.back().end;
  std::vector<LeafSpan> parts;
  int next = 0;
  for (int w = 0; w < workers_; ++w) {
    const LeafSpan span = spans[static_cast<size_t>(w)];
    if (span.begin != next || span.end < span.begin)
      fail(ErrorKind::kUsage, "worker {} holds virtual ranks [{},{}): expected a span from {} on", w,
           span.begin, span.end, next);
    next = span.end;
    const auto own = complete_subtrees(span, virtual_ranks);
    parts_of_.push_back(static_cast<int>(own.size()));
    for (size_t i = 0; i < own.size(); ++i) slots_.push_back({w, static_cast<int>(i)});
    parts.insert(parts.end(), own.begin(), own.end());
  }
  if (partials.size() != static_cast<size_t>(parts_of_.at(static_cast<size_t>(rank))))
    fail(ErrorKind::kUsage, "tree sum: rank {} holds {} subtrees, found {} buffers", rank,
         parts_of_[static_cast<size_t>(rank)], partials.size());
  folds_ = fold_plan(parts, virtual_ranks);
}

Shard TreeExchange::chunk_of(int owner, size_t chunk) const {
  const Shard own = shard(owner);
  const size_t begin = std::min(own.end, own.begin + chunk * chunk_elements_);
  return {begin, std::min(own.end, begin + chunk_elements_)};
}

void TreeExchange::all_reduce(Wire& wire, float* out) { run(wire, out, true); }
void TreeExchange::reduce_scatter(Wire& wire, float* out) { run(wire, out, false); }

// Every rank goes through the same chunks in the same order: start some, then fold the first of them. So the messages of a
// pair match. Even with nothing to move one empty chunk is exchanged: the call still finds out who is
// missing.
void TreeExchange::run(Wire& wire, float* out, bool gather) {
  const Pacing pacing = wire.pacing();
  in_flight_ = std::max<size_t>(1, pacing.in_flight);
  const size_t most = kScratchBytes / sizeof(float) / (in_flight_ * std::max<size_t>(1, slots_.size()));
  chunk_elements_ = std::clamp(most, kShardBlock, std::max(kShardBlock, pacing.piece_bytes / sizeof(float)));
  size_t longest = 0;
  for (int w = 0; w < workers_; ++w) longest = std::max(longest, shard(w).size());
  const size_t chunks = std::max<size_t>(1, (longest + chunk_elements_ - 1) / chunk_elements_);
  scratch_.assign(in_flight_, {});
  for (auto& s : scratch_) s.resize(std::min(chunk_elements_, longest) * slots_.size());
  arriving_.assign(in_flight_, {});
  for (size_t c = 0; c < chunks + in_flight_ - 1; ++c) {
    if (c < chunks) start_chunk(wire, c);
    if (c + 1 >= in_flight_ && c + 1 - in_flight_ < chunks) fold_chunk(wire, c + 1 - in_flight_, out, gather);
  }
  wire.wait_all();
}

void TreeExchange::start_chunk(Wire& wire, size_t chunk) {
  const size_t place = chunk % in_flight_;
  arriving_[place].clear();
  const Shard mine = chunk_of(rank_, chunk);
  for (size_t s = 0; s < slots_.size(); ++s)
    if (slots_[s].holder != rank_)
      arriving_[place].push_back(wire.receive(slots_[s].holder, scratch_[place].data() + s * mine.size(),
                                              mine.size() * sizeof(float)));
  for (int hop = 1; hop < workers_; ++hop) {
    const int owner = (rank_ + hop) % workers_;
    const Shard theirs = chunk_of(owner, chunk);
    for (float* partial : partials_) wire.send(owner, partial + theirs.begin, theirs.size() * sizeof(float));
  }
}

void TreeExchange::fold_chunk(Wire& wire, size_t chunk, float* out, bool gather) {
  const size_t place = chunk % in_flight_;
  const Shard mine = chunk_of(rank_, chunk);
  if (gather)
    for (int hop = 1; hop < workers_; ++hop) {
      const int owner = (rank_ - hop + workers_) % workers_;
      const Shard theirs = chunk_of(owner, chunk);
      wire.receive(owner, out + theirs.begin, theirs.size() * sizeof(float));
    }
  for (const Ticket& ticket : arriving_[place]) wire.wait(ticket);
  const auto at = [&](int s) {
    const Slot& slot = slots_[static_cast<size_t>(s)];
    return slot.holder == rank_ ? partials_[static_cast<size_t>(slot.index)] + mine.begin
                                : scratch_[place].data() + static_cast<size_t>(s) * mine.size();
  };
  // The last addition is the tree's root: it writes where the total belongs.
  float* result = gather ? out + mine.begin : out + (mine.begin - shard(rank_).begin);
  if (folds_.empty() && mine.size() > 0 && result != at(0))
    std::memmove(result, at(0), mine.size() * sizeof(float));
  for (size_t begin = 0; begin < mine.size() && !folds_.empty(); begin += kFoldElements) {
    const size_t n = std::min(kFoldElements, mine.size() - begin);
    for (size_t f = 0; f + 1 < folds_.size(); ++f)
      add_into(at(folds_[f].into) + begin, at(folds_[f].from) + begin, n);
    add_to(result + begin, at(folds_.back().into) + begin, at(folds_.back().from) + begin, n);
  }
  if (gather)
    for (int hop = 1; hop < workers_; ++hop)
      wire.send((rank_ + hop) % workers_, out + mine.begin, mine.size() * sizeof(float));
}

}  // namespace stoker::comm
