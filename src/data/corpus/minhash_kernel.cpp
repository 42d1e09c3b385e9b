#include "data/corpus/minhash_kernel.h"

#include "base/cpu_features.h"

namespace stoker::corpus {

void minhash_update_reference(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima) {
  for (size_t i = 0; i < rows.count; ++i) {
    uint64_t least = minima[i];
    for (const uint64_t x : shingles) {
      const uint64_t value = rows.a[i] * (x & 0xFFFFFFFFu) + rows.b[i] * (x >> 32) + rows.c[i];
      least = value < least ? value : least;
    }
    minima[i] = least;
  }
}

void minhash_update(std::span<const uint64_t> shingles, const MinHashRows& rows, uint64_t* minima) {
  static const auto chosen = cpu_has(Isa::kAvx512) ? minhash_update_avx512
                             : cpu_has(Isa::kAvx2) ? minhash_update_avx2
                                                   : minhash_update_reference;
  chosen(shingles, rows, minima);
}

}  // namespace stoker::corpus
