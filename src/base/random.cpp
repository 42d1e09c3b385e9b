#include "base/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/hash.h"

namespace stoker {

std::array<uint32_t, 4> philox(PhiloxKey key, uint64_t index) {
  std::array<uint32_t, 4> c{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                            static_cast<uint32_t>(key.stream), static_cast<uint32_t>(key.stream >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

uint64_t random_u64(PhiloxKey key, uint64_t index) {
  const auto r = philox(key, index);
  return (uint64_t{r[1]} << 32) | r[0];
}

float random_uniform(PhiloxKey key, uint64_t index) {
  return static_cast<float>(philox(key, index)[0] >> 8) * 0x1.0p-24f;
}

float random_normal(PhiloxKey key, uint64_t index) {
  const auto r = philox(key, index);
  const double u = (static_cast<double>(r[0]) + 0.5) * 0x1.0p-32;
  const double v = static_cast<double>(r[1]) * 0x1.0p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

KeyedPermutation::KeyedPermutation(uint64_t key, uint64_t size) : size_(size) {
  STOKER_CHECK(size >= 1, "a permutation of nothing");
  const int bits = size <= 2 ? 2 : std::bit_width(size - 1);
  half_bits_ = (bits + 1) / 2;
  mask_ = (uint64_t{1} << half_bits_) - 1;
  for (int i = 0; i < kRounds; ++i)
    keys_[static_cast<size_t>(i)] = random_u64({key, 0x5045524d}, static_cast<uint64_t>(i));
}

uint64_t KeyedPermutation::round(int i, uint64_t half) const {
  uint64_t x = half + keys_[static_cast<size_t>(i)];  // the finaliser of SplitMix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return (x ^ (x >> 31)) & mask_;
}

uint64_t KeyedPermutation::permute(uint64_t index) const {
  STOKER_CHECK(index < size_);
  uint64_t x = index;
  do {
    uint64_t left = x >> half_bits_, right = x & mask_;
    for (int i = 0; i < kRounds; ++i) {
      const uint64_t next = left ^ round(i, right);
      left = right;
      right = next;
    }
    x = (left << half_bits_) | right;
  } while (x >= size_);
  return x;
}

uint64_t KeyedPermutation::unpermute(uint64_t image) const {
  STOKER_CHECK(image < size_);
  uint64_t x = image;
  do {
    uint64_t left = x >> half_bits_, right = x & mask_;
    for (int i = kRounds - 1; i >= 0; --i) {
      const uint64_t previous = right ^ round(i, left);
      right = left;
      left = previous;
    }
    x = (left << half_bits_) | right;
  } while (x >= size_);
  return x;
}

}  // namespace stoker
