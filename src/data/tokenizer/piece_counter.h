// data/tokenizer/piece_counter.h
// How often each piece occurs. Short pieces live inside an open-addressing table, long ones in a map.
// One thread at a time. Private to this room.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/piece_key.h"

namespace stoker::tokenizer {

class PieceCounter {
 public:
  PieceCounter();
  void add(std::string_view piece, size_t readable, uint64_t count = 1) {
    if (piece.size() <= kMaxKeyBytes) [[likely]]
      add_key(make_key(piece.data(), piece.size(), readable), count);
    else add_long(piece, count);
  }
  void merge(const PieceCounter& other);
  size_t distinct() const { return used_ + long_.size(); }

  // body(std::string_view piece, uint64_t count), each piece once, in no particular order.
  template <typename Body>
  void for_each(Body&& body) const {
    for (const Slot& s : slots_) {
      if (!s.count) continue;
      char bytes[16];
      std::memcpy(bytes, &s.key.low, 8);
      std::memcpy(bytes + 8, &s.key.high, 8);
      body(std::string_view(bytes, s.key.high >> 56), s.count);
    }
    for (const auto& [piece, count] : long_) body(std::string_view(piece), count);
  }

 private:
  struct Slot {
    PieceKey key;
    uint64_t count = 0;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const;
  };
  void add_key(PieceKey key, uint64_t count) {
    for (size_t i = hash_key(key) >> shift_;; i = (i + 1) & mask_) {
      Slot& s = slots_[i];
      if (s.key == key) [[likely]] {
        s.count += count;
        return;
      }
      if (!s.count) {
        s = {key, count};
        if (++used_ * 2 > slots_.size()) grow();
        return;
      }
    }
  }
  void add_long(std::string_view piece, uint64_t count);
  void grow();

  std::vector<Slot> slots_;
  size_t used_ = 0, mask_ = 0;
  int shift_ = 0;
  std::unordered_map<std::string, uint64_t, Hash, std::equal_to<>> long_;
};

}  // namespace stoker::tokenizer
