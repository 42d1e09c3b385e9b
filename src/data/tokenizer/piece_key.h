// data/tokenizer/piece_key.h
// Short pieces as 16-byte values: up to 15 bytes, zero-padded, with the length in the last byte. Two loads
// and a mask make one, two compares test one. Private to this room.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace stoker::tokenizer {

struct PieceKey {
  uint64_t low = 0, high = 0;
  bool operator==(const PieceKey&) const = default;
};

inline constexpr size_t kMaxKeyBytes = 15;

// [length]: ones over that many bytes.
inline constexpr auto kKeyMasks = [] {
  std::array<PieceKey, kMaxKeyBytes + 1> masks;
  for (size_t length = 0; length <= kMaxKeyBytes; ++length) {
    masks[length].low = length >= 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * length) - 1;
    masks[length].high = length <= 8 ? 0 : (uint64_t{1} << 8 * (length - 8)) - 1;
  }
  return masks;
}();

// Only the first 15 bytes of a longer piece count: such a key is of no use but harmless to make.
// readable: bytes that may be read from piece.data(), at least piece.size().
inline PieceKey make_key(const char* data, size_t size, size_t readable) {
  PieceKey k;
  const size_t length = size < kMaxKeyBytes ? size : kMaxKeyBytes;
  if (readable >= 16) [[likely]] {
    std::memcpy(&k.low, data, 8);
    std::memcpy(&k.high, data + 8, 8);
    k.low &= kKeyMasks[length].low;
    k.high &= kKeyMasks[length].high;
  } else {
    char bytes[16] = {};
    std::memcpy(bytes, data, length);
    std::memcpy(&k.low, bytes, 8);
    std::memcpy(&k.high, bytes + 8, 8);
  }
  k.high |= uint64_t{length} << 56;
  return k;
}

inline size_t key_length(PieceKey k) { return k.high >> 56; }

inline uint64_t hash_key(PieceKey k) {
  const uint64_t x = (k.low ^ (k.high >> 29)) * 0x9E3779B97F4A7C15u;
  return (x ^ k.high ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
}

}  // namespace stoker::tokenizer
