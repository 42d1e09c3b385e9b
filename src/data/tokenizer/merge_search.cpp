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
  uint32_t id_of_byte[256];
  lengths_.assign(static_cast<size_t>(first_byte_id), 0);
  for (uint8_t byte : alphabet_order()) {
    const int32_t id = first_byte_id + static_cast<int32_t>(tokens_.size());
    id_of_byte[byte] = static_cast<uint32_t>(id);
    tokens_.emplace_back(1, static_cast<char>(byte));
    ids_.emplace(tokens_.back(), id);
    lengths_.push_back(1);
  }
  uint64_t size = 1, count = 0;
  pieces.for_each([&](std::string_view piece, uint64_t) {
    if (piece.size() > 1) size += piece.size() + 1, ++count;
  });
  if (size >= kNoSlice)
    fail(ErrorKind::kUsage,
         "the distinct pieces of the training text add up to {} bytes, more than the 4294967294 that one "
         "training can "
         "hold: train on a sample of the text",
         size);
  cells_.reserve(size);
  weight_.reserve(count);
  cells_.push_back(kGap);
  pieces.for_each([&](std::string_view piece, uint64_t times) {
    if (piece.size() < 2) return;  // holds no pair
    for (char c : piece) cells_.push_back(id_of_byte[static_cast<uint8_t>(c)]);
    cells_.push_back(kGap);
    weight_.push_back(static_cast<int64_t>(times));
  });
}

void MergeSearch::count_first_pairs() {
  std::vector<int64_t> counts(65536);
  std::vector<uint32_t> sizes(65536);
  // body(place, which of the 65536 pairs of bytes)
  auto each_pair = [&](auto&& body) {
    uint32_t piece = 0;
    const auto first = static_cast<uint32_t>(first_id_);
    for (uint32_t p = 1; p + 1 < cells_.size(); ++p) {
      if (cells_[p] == kGap) ++piece;
      else if (cells_[p + 1] != kGap)
        body(Place{p, piece}, (cells_[p] - first) << 8 | (cells_[p + 1] - first));
    }
  };
  each_pair([&](Place place, uint32_t c) { counts[c] += weight_[place.piece], ++sizes[c]; });
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
  }
  places_.resize(total);
  each_pair([&](Place place, uint32_t c) { places_[next[c]++] = place; });
  floor_ = INT64_MAX;
}

uint32_t MergeSearch::pair_index(int32_t left, int32_t right) {
  if ((pairs_.size() + 1) * 2 > pair_slots_.size()) grow_pair_slots();
  const size_t mask = pair_slots_.size() - 1;
  const uint64_t key = pair_key(left, right);
  for (size_t i = pair_home(key);; i = (i + 1) & mask) {
    PairSlot& slot = pair_slots_[i];
    if (slot.index == kNoPair) {
      slot = {key, static_cast<uint32_t>(pairs_.size())};
      pairs_.push_back({left, right});
      return slot.index;
    }
    if (slot.key == key) return slot.index;
  }
}

void MergeSearch::grow_pair_slots() {
  const size_t size = std::max<size_t>(size_t{1} << 16, pair_slots_.size() * 4);
  pair_slots_.assign(size, PairSlot{});
  pair_shift_ = 64 - std::countr_zero(size);
  for (size_t p = 0; p < pairs_.size(); ++p) {
    const uint64_t key = pair_key(pairs_[p].left, pairs_[p].right);
    size_t i = pair_home(key);
    while (pair_slots_[i].index != kNoPair) i = (i + 1) & (size - 1);
    pair_slots_[i] = {key, static_cast<uint32_t>(p)};
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

void MergeSearch::offer(uint32_t pair) {
  const Pair& p = pairs_[pair];
  if (p.count >= floor_) queue_.push({p.count, p.left, p.right, pair});
}

// Takes in the pairs of the next lower counts; false when there are none left to take in.
bool MergeSearch::lower_floor(int64_t least) {
  if (floor_ <= least) return false;
  int64_t highest = 0;
  for (const Pair& p : pairs_) highest = std::max(highest, p.count);
  floor_ = std::max(least, highest - highest / 4);
  queue_ = {};
  for (uint32_t i = 0; i < pairs_.size(); ++i) offer(i);
  return true;
}

void MergeSearch::run(int32_t vocab_size, uint64_t min_frequency, const std::function<void(int32_t)>& step) {
  const auto least =
      static_cast<int64_t>(std::max<uint64_t>(1, std::min<uint64_t>(min_frequency, INT64_MAX)));
  while (first_id_ + static_cast<int32_t>(tokens_.size()) < vocab_size) {
    if (queue_.empty()) {
      if (!lower_floor(least)) break;
      continue;
    }
    const Candidate top = queue_.top();
    queue_.pop();
    if (pairs_[top.pair].count != top.count) {
      offer(top.pair);
      continue;
    }
    const int32_t result = result_of(top.left, top.right);
    if (result < 0) {
      pairs_[top.pair].count = 0;
      continue;
    }
    merges_.push_back({top.left, top.right, result, static_cast<uint32_t>(merges_.size())});
    apply(top.left, top.right, result, top.pair);
    if (step) step(first_id_ + static_cast<int32_t>(tokens_.size()));
  }
}

void MergeSearch::apply(int32_t left, int32_t right, int32_t result, uint32_t pair) {
  left_.resize(lengths_.size());
  right_.resize(lengths_.size());
  // Places in text order: what "leftmost first" means for overlapping ones (aaa).
  scratch_.clear();
  for (uint32_t s = pairs_[pair].first_slice; s != kNoSlice; s = slices_[s].next)
    scratch_.insert(scratch_.end(), places_.begin() + static_cast<std::ptrdiff_t>(slices_[s].begin),
                    places_.begin() + static_cast<std::ptrdiff_t>(slices_[s].end));
  if (pairs_[pair].first_slice != kNoSlice && slices_[pairs_[pair].first_slice].next != kNoSlice)
    std::sort(scratch_.begin(), scratch_.end(), [](Place a, Place b) { return a.cell < b.cell; });
  const uint32_t left_length = lengths_[static_cast<size_t>(left)],
                 right_length = lengths_[static_cast<size_t>(right)];
  constexpr size_t kAhead = 16;
  for (size_t k = 0; k < scratch_.size(); ++k) {
    if (k + kAhead < scratch_.size()) {
      __builtin_prefetch(&cells_[scratch_[k + kAhead].cell]);
      __builtin_prefetch(&weight_[scratch_[k + kAhead].piece]);
    }
    const auto [p, piece] = scratch_[k];
    const uint32_t q = p + left_length, after = q + right_length;
    if (cells_[p] != static_cast<uint32_t>(left) || cells_[q] != static_cast<uint32_t>(right)) continue;
    const int64_t w = weight_[piece];
    if (const uint32_t c = cells_[p - 1]; c != kGap) {
      const uint32_t before = c & kBack ? p - 1 - (c & ~kBack) : p - 1;
      left_.add(static_cast<int32_t>(cells_[before]), w, {before, piece});
    }
    if (const uint32_t c = cells_[after]; c != kGap) right_.add(static_cast<int32_t>(c), w, {p, piece});
    cells_[p] = static_cast<uint32_t>(result);
    cells_[q] = kDead;
    cells_[after - 1] = kBack | (after - 1 - p);
  }
  record(left_, true, result);
  record(right_, false, result);
  settle(left_, true, left);
  settle(right_, false, right);
  // Overlapping places took from the pair itself what is gone anyway.
  pairs_[pair].count = 0;
  pairs_[pair].first_slice = kNoSlice;
}

// The new pairs (neighbour, result) or (result, neighbour): counts, places, queue.
void MergeSearch::record(Tally& tally, bool neighbour_is_left, int32_t result) {
  for (const int32_t n : tally.touched)
    fetch_slot(neighbour_is_left ? pair_key(n, result) : pair_key(result, n));
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
    offer(index);
  }
  places_.resize(end);
  for (const auto& [n, place] : tally.records)
    places_[next_place_[tally.places[static_cast<size_t>(n)]]++] = place;
}

// The old pairs (neighbour, left) or (right, neighbour) lose what the merge took.
void MergeSearch::settle(Tally& tally, bool neighbour_is_left, int32_t other) {
  for (const int32_t n : tally.touched)
    fetch_slot(neighbour_is_left ? pair_key(n, other) : pair_key(other, n));
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
