// base/random.h
// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC11, "Parallel random numbers: as easy as 1,
// 2, 3"). A draw is a pure function of (seed, stream, index): no state to save, the same for any rank, thread
// or order of calls.
#pragma once
#include <array>
#include <cstdint>

namespace stoker {

struct PhiloxKey {
  uint64_t seed = 0;
  uint64_t stream = 0;  // what the numbers are for: a hash of (step, sample, site), a tensor's name, ...
};

// Four independent uniform 32-bit words for counter value `index`.
std::array<uint32_t, 4> philox(PhiloxKey key, uint64_t index);

// Draw number `index`: uniform 64 bits; uniform in [0,1) with 24 bits; standard normal (Box-Muller in
// float64).
uint64_t random_u64(PhiloxKey key, uint64_t index);
float random_uniform(PhiloxKey key, uint64_t index);
float random_normal(PhiloxKey key, uint64_t index);

// A keyed permutation of [0, size): a Feistel network over the next even power of two with cycle-walking
// (Black & Rogaway 2002). permute and unpermute are inverse; O(1) each, no table. size >= 1.
class KeyedPermutation {
 public:
  KeyedPermutation(uint64_t key, uint64_t size);
  uint64_t size() const { return size_; }
  uint64_t permute(uint64_t index) const;
  uint64_t unpermute(uint64_t image) const;

 private:
  static constexpr int kRounds = 6;
  uint64_t round(int i, uint64_t half) const;
  std::array<uint64_t, kRounds> keys_;
  uint64_t size_;
  uint64_t mask_;  // of one half
  int half_bits_;
};

}  // namespace stoker
