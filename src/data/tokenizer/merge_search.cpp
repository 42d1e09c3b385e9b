#include "data/tokenizer/merge_search.h"

#include <algorithm>

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
  symbol_.reserve(size), start_.reserve(size), piece_.reserve(size);
  auto put = [&](int32_t symbol) {
    start_.push_back(static_cast<uint32_t>(symbol_.size()));
    symbol_.push_back(symbol);
    piece_.push_back(static_cast<uint32_t>(weight_.size()));
  };
  put(kGap);
  pieces.for_each([&](std::string_view piece, uint64_t count) {
    if (piece.size() < 2) return;  // holds no pair
    for (char c : piece) put(id_of_byte[static_cast<uint8_t>(c)]);
    put(kGap);
    weight_.push_back(static_cast<int64_t>(count));
  });
}

void MergeSearch::count_first_pairs() {
  std::vector<int64_t> counts(65536);
  std::vector<uint32_t> sizes(65536);
  auto cell = [&](size_t p) {
    return static_cast<size_t>(symbol_[p] - first_id_) << 8 | static_cast<size_t>(symbol_[p + 1] - first_id_);
  };
  for (size_t p = 0; p + 1 < symbol_.size(); ++p)
    if (symbol_[p] >= 0 && symbol_[p + 1] >= 0) counts[cell(p)] += weight_[piece_[p]], ++sizes[cell(p)];
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
  for (size_t p = 0; p + 1 < symbol_.size(); ++p)
    if (symbol_[p] >= 0 && symbol_[p + 1] >= 0) places_[next[cell(p)]++] = static_cast<uint32_t>(p);
}

uint32_t MergeSearch::pair_index(int32_t left, int32_t right) {
  const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  const auto [it, added] = pair_ids_.try_emplace(key, static_cast<uint32_t>(pairs_.size()));
  if (added) pairs_.push_back({left, right});
  return it->second;
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
    std::sort(scratch_.begin(), scratch_.end());
  const uint32_t left_length = lengths_[static_cast<size_t>(left)],
                 right_length = lengths_[static_cast<size_t>(right)];
  for (const uint32_t p : scratch_) {
    const uint32_t q = p + left_length;
    if (symbol_[p] != left || symbol_[q] != right) continue;
    const int64_t w = weight_[piece_[p]];
    const uint32_t before = start_[p - 1], after = q + right_length;
    if (const int32_t n = symbol_[before]; n >= 0) {
      left_.touch(n);
      left_.gained[static_cast<size_t>(n)] += w;
      left_.lost[static_cast<size_t>(n)] += w;
      left_.records.emplace_back(n, before);
    }
    if (const int32_t n = symbol_[after]; n >= 0) {
      right_.touch(n);
      right_.gained[static_cast<size_t>(n)] += w;
      right_.lost[static_cast<size_t>(n)] += w;
      right_.records.emplace_back(n, p);
    }
    symbol_[p] = result;
    symbol_[q] = kDead;
    start_[after - 1] = p;
  }
  pairs_[pair].count = 0;
  pairs_[pair].first_slice = kNoSlice;
  record(left_, true, result);
  record(right_, false, result);
  settle(left_, true, left);
  settle(right_, false, right);
  pairs_[pair].count = 0;  // overlapping places took from it what is gone anyway
}

// The new pairs (neighbour, result) or (result, neighbour): counts, places, queue.
void MergeSearch::record(Tally& tally, bool neighbour_is_left, int32_t result) {
  for (const auto& [n, place] : tally.records) ++tally.places[static_cast<size_t>(n)];
  std::vector<uint64_t> next(tally.touched.size());
  uint64_t end = places_.size();
  for (size_t i = 0; i < tally.touched.size(); ++i) {
    const int32_t n = tally.touched[i];
    const uint32_t index = neighbour_is_left ? pair_index(n, result) : pair_index(result, n);
    Pair& pair = pairs_[index];
    pair.count += tally.gained[static_cast<size_t>(n)];
    next[i] = end;
    end += tally.places[static_cast<size_t>(n)];
    slices_.push_back({next[i], end, pair.first_slice});
    pair.first_slice = static_cast<uint32_t>(slices_.size() - 1);
    tally.places[static_cast<size_t>(n)] = static_cast<uint32_t>(i);
    queue_.push({pair.count, pair.left, pair.right, index});
  }
  places_.resize(end);
  for (const auto& [n, place] : tally.records) places_[next[tally.places[static_cast<size_t>(n)]]++] = place;
}

// The old pairs (neighbour, left) or (right, neighbour) lose what the merge took.
void MergeSearch::settle(Tally& tally, bool neighbour_is_left, int32_t other) {
  for (const int32_t n : tally.touched) {
    const auto i = static_cast<size_t>(n);
    pairs_[neighbour_is_left ? pair_index(n, other) : pair_index(other, n)].count -= tally.lost[i];
    tally.gained[i] = tally.lost[i] = 0;
    tally.places[i] = 0;
  }
  tally.touched.clear();
  tally.records.clear();
}

}  // namespace stoker::tokenizer
