#include "data/tokenizer/merge_search.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace stoker::tokenizer {

MergeSearch::MergeSearch(const PieceCounter& pieces, int32_t first_byte_id,
                         std::unordered_set<std::string> forbidden)
    : first_id_(first_byte_id), forbidden_(std::move(forbidden)) {
  lay_out(pieces, first_byte_id);
  count_first_pairs();
}

void MergeSearch::lay_out(const PieceCounter& pieces, int32_t first_byte_id) {
  int32_t id_of_byte[256];
  lengths_.assign(static_cast<size_t>(first_byte_id), 0);
  for (uint8_t byte : alphabet_order()) {
    id_of_byte[byte] = first_byte_id + static_cast<int32_t>(tokens_.size());
    tokens_.emplace_back(1, static_cast<char>(byte));
    ids_.emplace(tokens_.back(), id_of_byte[byte]);
    lengths_.push_back(1);
  }
  uint64_t size = 1;
  pieces.for_each([&](std::string_view piece, uint64_t) {
    if (piece.size() > 1) size += piece.size() + 1;
  });
  if (size >= kNoSlice)
    fail(ErrorKind::kUsage,
         "the distinct pieces of the training text add up to {} bytes, more than the 4294967294 that one "
         "training can "
         "hold: train on a sample of the text",
         size);
  cells_.reserve(size);
  auto put = [&](int32_t symbol, uint64_t count) {
    cells_.push_back({symbol, static_cast<uint32_t>(cells_.size()), static_cast<int64_t>(count)});
  };
  put(kGap, 0);
  pieces.for_each([&](std::string_view piece, uint64_t count) {
    if (piece.size() < 2) return;  // holds no pair
    for (char c : piece) put(id_of_byte[static_cast<uint8_t>(c)], count);
    put(kGap, 0);
  });
}

void MergeSearch::count_first_pairs() {
  std::vector<int64_t> counts(65536);
  std::vector<uint32_t> sizes(65536);
  // body(place, which of the 65536 pairs of bytes)
  auto each_pair = [&](auto&& body) {
    for (size_t p = 0; p + 1 < cells_.size(); ++p) {
      const int32_t a = cells_[p].symbol, b = cells_[p + 1].symbol;
      if (a >= 0 && b >= 0)
        body(p, static_cast<size_t>(a - first_id_) << 8 | static_cast<size_t>(b - first_id_));
    }
  };
  each_pair([&](size_t p, size_t c) { counts[c] += cells_[p].weight, ++sizes[c]; });
  std::vector<uint64_t> next(65536);
  uint64_t total = 0;
  for (size_t c = 0; c < counts.size(); ++c) {
    if (!sizes[c]) continue;
    const uint32_t index =
        pair_index(first_id_ + static_cast<int32_t>(c >> 8), first_id_ + static_cast<int32_t>(c & 255));
    pairs_[index].count = counts[c];
    pairs_[index].first_slice = static_cast<uint32_t>(slices_.size());
    slices_.push_back({total, total + sizes[c], kNoSlice});
    next[c] = total;
    total += sizes[c];
    queue_.push({counts[c], pairs_[index].left, pairs_[index].right, index});
  }
  places_.resize(total);
  each_pair([&](size_t p, size_t c) { places_[next[c]++] = static_cast<uint32_t>(p); });
}

uint32_t MergeSearch::pair_index(int32_t left, int32_t right) {
  if ((pairs_.size() + 1) * 2 > pair_slots_.size()) grow_pair_slots();
  const size_t mask = pair_slots_.size() - 1;
  for (size_t i = pair_home(left, right);; i = (i + 1) & mask) {
    uint32_t& slot = pair_slots_[i];
    if (!slot) {
      pairs_.push_back({left, right});
      return (slot = static_cast<uint32_t>(pairs_.size())) - 1;
    }
    const Pair& pair = pairs_[slot - 1];
    if (pair.left == left && pair.right == right) return slot - 1;
  }
}

void MergeSearch::grow_pair_slots() {
  const size_t size = std::max<size_t>(size_t{1} << 18, pair_slots_.size() * 2);
  pair_slots_.assign(size, 0);
  pair_shift_ = 64 - std::countr_zero(size);
  for (size_t p = 0; p < pairs_.size(); ++p) {
    size_t i = pair_home(pairs_[p].left, pairs_[p].right);
    while (pair_slots_[i]) i = (i + 1) & (size - 1);
    pair_slots_[i] = static_cast<uint32_t>(p + 1);
  }
}

int32_t MergeSearch::result_of(int32_t left, int32_t right) {
  std::string bytes =
      tokens_[static_cast<size_t>(left - first_id_)] + tokens_[static_cast<size_t>(right - first_id_)];
  if (forbidden_.contains(bytes)) return -1;
  const auto [it, added] = ids_.try_emplace(bytes, first_id_ + static_cast<int32_t>(tokens_.size()));
  if (added) {
    lengths_.push_back(static_cast<uint32_t>(bytes.size()));
    tokens_.push_back(std::move(bytes));
  }
  return it->second;
}

void MergeSearch::run(int32_t vocab_size, uint64_t min_frequency, const std::function<void(int32_t)>& step) {
  const auto least =
      static_cast<int64_t>(std::max<uint64_t>(1, std::min<uint64_t>(min_frequency, INT64_MAX)));
  while (first_id_ + static_cast<int32_t>(tokens_.size()) < vocab_size && !queue_.empty()) {
    const Candidate top = queue_.top();
    queue_.pop();
    const int64_t count = pairs_[top.pair].count;
    if (count != top.count) {
      if (count >= least) queue_.push({count, top.left, top.right, top.pair});
      continue;
    }
    if (count < least) break;
    const int32_t result = result_of(top.left, top.right);
    if (result < 0) continue;
    merges_.push_back({top.left, top.right, result, static_cast<uint32_t>(merges_.size())});
    apply(top.left, top.right, result, top.pair, least);
    if (step) step(first_id_ + static_cast<int32_t>(tokens_.size()));
  }
}

void MergeSearch::apply(int32_t left, int32_t right, int32_t result, uint32_t pair, int64_t least) {
  left_.resize(lengths_.size());
  right_.resize(lengths_.size());
  // Places in text order: what "leftmost first" means for overlapping ones (aaa).
  scratch_.clear();
  for (uint32_t s = pairs_[pair].first_slice; s != kNoSlice; s = slices_[s].next)
    scratch_.insert(scratch_.end(), places_.begin() + static_cast<std::ptrdiff_t>(slices_[s].begin),
                    places_.begin() + static_cast<std::ptrdiff_t>(slices_[s].end));
  if (pairs_[pair].first_slice != kNoSlice && slices_[pairs_[pair].first_slice].next != kNoSlice)
    std::sort(scratch_.begin(), scratch_.end());
  const uint32_t left_length = lengths_[static_cast<size_t>(left)],
                 right_length = lengths_[static_cast<size_t>(right)];
  constexpr size_t kAhead = 12;
  for (size_t k = 0; k < scratch_.size(); ++k) {
    if (k + kAhead < scratch_.size()) __builtin_prefetch(&cells_[scratch_[k + kAhead]]);
    const uint32_t p = scratch_[k], q = p + left_length;
    if (cells_[p].symbol != left || cells_[q].symbol != right) continue;
    const int64_t w = cells_[p].weight;
    const uint32_t before = cells_[p - 1].start, after = q + right_length;
    auto change = [&](Tally& tally, int32_t neighbour, uint32_t place) {
      const auto n = static_cast<size_t>(neighbour);
      tally.touch(neighbour);
      tally.gained[n] += w;
      ++tally.places[n];
      tally.records.emplace_back(neighbour, place);
    };
    if (const int32_t n = cells_[before].symbol; n >= 0) change(left_, n, before);
    if (const int32_t n = cells_[after].symbol; n >= 0) change(right_, n, p);
    cells_[p].symbol = result;
    cells_[q].symbol = kDead;
    cells_[after - 1].start = p;
  }
  pairs_[pair].count = 0;
  pairs_[pair].first_slice = kNoSlice;
  record(left_, true, result, least);
  record(right_, false, result, least);
  settle(left_, true, left);
  settle(right_, false, right);
  pairs_[pair].count = 0;  // overlapping places took from it what is gone anyway
}

// The new pairs (neighbour, result) or (result, neighbour): counts, places, queue.
void MergeSearch::record(Tally& tally, bool neighbour_is_left, int32_t result, int64_t least) {
  next_place_.resize(tally.touched.size());
  uint64_t end = places_.size();
  for (size_t i = 0; i < tally.touched.size(); ++i) {
    const int32_t n = tally.touched[i];
    const uint32_t index = neighbour_is_left ? pair_index(n, result) : pair_index(result, n);
    Pair& pair = pairs_[index];
    pair.count += tally.gained[static_cast<size_t>(n)];
    next_place_[i] = end;
    end += tally.places[static_cast<size_t>(n)];
    slices_.push_back({next_place_[i], end, pair.first_slice});
    pair.first_slice = static_cast<uint32_t>(slices_.size() - 1);
    tally.places[static_cast<size_t>(n)] = static_cast<uint32_t>(i);
    if (pair.count >= least) queue_.push({pair.count, pair.left, pair.right, index});
  }
  places_.resize(end);
  for (const auto& [n, place] : tally.records)
    places_[next_place_[tally.places[static_cast<size_t>(n)]]++] = place;
}

// The old pairs (neighbour, left) or (right, neighbour) lose what the merge took.
void MergeSearch::settle(Tally& tally, bool neighbour_is_left, int32_t other) {
  for (const int32_t n : tally.touched) {
    const auto i = static_cast<size_t>(n);
    pairs_[neighbour_is_left ? pair_index(n, other) : pair_index(other, n)].count -= tally.gained[i];
    tally.gained[i] = 0;
    tally.places[i] = 0;
  }
  tally.touched.clear();
  tally.records.clear();
}

}  // namespace stoker::tokenizer
