#include "data/shard/best_fit.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace stoker::data {
namespace {

// Over room 0..length: which amounts of room some open row has. Answers "the least room of at least x".
class RoomTree {
 public:
  explicit RoomTree(uint32_t length)
      : rows_(length + 1), leaves_(std::bit_ceil(length + 1u)), count_(2 * leaves_) {}
  void add(uint32_t room, uint32_t row) {
    rows_[room].push_back(row);
    for (size_t at = leaves_ + room; at; at /= 2) ++count_[at];
  }
  // false: no row has that much room.
  bool take(uint32_t at_least, uint32_t& room, uint32_t& row) {
    size_t at = leaves_ + at_least;
    while (count_[at] == 0) {
      while (at & 1) at /= 2;  // a right child: up
      if (at == 0) return false;
      ++at;
      if ((at & (at - 1)) == 0) return false;  // wrapped to the next level's start: nothing to the right
    }
    while (at < leaves_) at = count_[2 * at] ? 2 * at : 2 * at + 1;
    room = static_cast<uint32_t>(at - leaves_);
    row = rows_[room].back();
    rows_[room].pop_back();
    for (; at; at /= 2) --count_[at];
    return true;
  }

 private:
  std::vector<std::vector<uint32_t>> rows_;
  size_t leaves_;
  std::vector<uint32_t> count_;
};

}  // namespace

double padding_of(uint64_t rows, uint64_t length, uint64_t tokens) {
  if (rows == 0) return 0;
  return 1 - static_cast<double>(tokens) / (static_cast<double>(rows) * static_cast<double>(length));
}

PackPlan pack_best_fit(std::span<const uint32_t> document_tokens, uint32_t length) {
  STOKER_CHECK(length >= 1, "rows of {} tokens", length);
  PackPlan plan;
  plan.length = length;
  for (uint32_t d = 0; d < document_tokens.size(); ++d) {
    const uint32_t tokens = document_tokens[d];
    plan.tokens += tokens;
    plan.cut_documents += tokens > length;
    for (uint32_t first = 0; first < tokens; first += std::min(length, tokens - first))
      plan.pieces.push_back({d, first, std::min(length, tokens - first), 0});
  }
  std::stable_sort(plan.pieces.begin(), plan.pieces.end(),
                   [](const PackPiece& a, const PackPiece& b) { return a.tokens > b.tokens; });
  RoomTree open(length);
  for (auto& piece : plan.pieces) {
    uint32_t room = length, row = 0;
    if (!open.take(piece.tokens, room, row)) {
      room = length;
      row = static_cast<uint32_t>(plan.rows++);
    }
    piece.row = row;
    if (room > piece.tokens) open.add(room - piece.tokens, row);
  }
  std::stable_sort(plan.pieces.begin(), plan.pieces.end(),
                   [](const PackPiece& a, const PackPiece& b) { return a.row < b.row; });
  return plan;
}

void ConcatenatedRows::add(uint64_t tokens) {
  const uint64_t begin = tokens_, end = begin + tokens;
  if (tokens && begin / length_ != (end - 1) / length_) ++cut_documents_;
  tokens_ = end;
}

}  // namespace stoker::data
