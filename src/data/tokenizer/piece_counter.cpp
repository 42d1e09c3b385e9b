#include "data/tokenizer/piece_counter.h"

#include <bit>

#include "base/hash.h"

namespace stoker::tokenizer {

PieceCounter::PieceCounter() {
  slots_.resize(size_t{1} << 14);
  mask_ = slots_.size() - 1;
  shift_ = 64 - std::countr_zero(slots_.size());
}

size_t PieceCounter::Hash::operator()(std::string_view s) const { return hash64(s); }

void PieceCounter::add_long(std::string_view piece, uint64_t count) {
  if (const auto it = long_.find(piece); it != long_.end()) it->second += count;
  else long_.emplace(piece, count);
}

void PieceCounter::grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  mask_ = slots_.size() - 1;
  --shift_;
  for (const Slot& s : old) {
    if (!s.count) continue;
    size_t i = hash_key(s.key) >> shift_;
    while (slots_[i].count) i = (i + 1) & mask_;
    slots_[i] = s;
  }
}

void PieceCounter::merge(const PieceCounter& other) {
  // The other table hands its keys over in the order of their hashes: into a small table they would all pile
  // up at its start.
  while (slots_.size() < other.slots_.size()) grow();
  for (const Slot& s : other.slots_)
    if (s.count) add_key(s.key, s.count);
  for (const auto& [piece, count] : other.long_) add_long(piece, count);
}

}  // namespace stoker::tokenizer
