// data/tokenizer/piece_key.h
// Short pieces as 16-byte values: up to 15 bytes, zero-padded, with the length in the last byte. Two loads
// and a mask make one, two compares test one. Private to this room.
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace stoker::tokenizer {

struct PieceKey {
  uint64_t low = 0, high = 0;
  bool operator==(const PieceKey&) const = default;
};

inline constexpr size_t kMaxKeyBytes = 15;

// readable: bytes that may be read from piece.data(), at least piece.size().
inline PieceKey make_key(const char* data, size_t size, size_t readable) {
  PieceKey k;
  if (readable >= 16) [[likely]] {
    std::memcpy(&k.low, data, 8);
    std::memcpy(&k.high, data + 8, 8);
    // Shifts by 64 are undefined, so the widest case is taken in two steps.
    const uint64_t low_mask = size >= 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * size) - 1;
    const uint64_t high_mask = size <= 8 ? 0 : (uint64_t{1} << 8 * (size - 8)) - 1;
    k.low &= low_mask;
    k.high &= high_mask;
  } else {
    char bytes[16] = {};
    std::memcpy(bytes, data, size);
    std::memcpy(&k.low, bytes, 8);
    std::memcpy(&k.high, bytes + 8, 8);
  }
  k.high |= uint64_t{size} << 56;
  return k;
}

inline uint64_t hash_key(PieceKey k) {
  const uint64_t x = (k.low ^ (k.high >> 29)) * 0x9E3779B97F4A7C15u;
  return (x ^ k.high ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
}

}  // namespace stoker::tokenizer
