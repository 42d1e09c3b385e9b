#include <immintrin.h>

#include "data/tokenizer/split_batch.h"
#include "data/tokenizer/split_window.h"

namespace stoker::tokenizer {
namespace {

struct Avx2 {
  static ClassMasks classes(const uint8_t* s);
  static size_t positions(uint64_t bits, size_t base, size_t* to);
};

ClassMasks Avx2::classes(const uint8_t* s) {
  const __m256i v[2] = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(s)),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(s + 32))};
  auto join = [&](auto&& test) {
    const auto low = static_cast<uint32_t>(_mm256_movemask_epi8(test(v[0])));
    const auto high = static_cast<uint32_t>(_mm256_movemask_epi8(test(v[1])));
    return uint64_t{high} << 32 | low;
  };
  auto below = [&](char first, char count, char fold) {
    return join([&](__m256i x) {
      x = _mm256_sub_epi8(_mm256_or_si256(x, _mm256_set1_epi8(fold)), _mm256_set1_epi8(first));
      return _mm256_cmpeq_epi8(x, _mm256_min_epu8(x, _mm256_set1_epi8(static_cast<char>(count - 1))));
    });
  };
  auto equal = [&](char c) {
    return join([&](__m256i x) { return _mm256_cmpeq_epi8(x, _mm256_set1_epi8(c)); });
  };
  ClassMasks m;
  m.letter = below('a', 26, 0x20);
  m.upper = below('A', 26, 0);
  m.digit = below('0', 10, 0);
  m.blank = equal(' ');
  m.space = m.blank | below(9, 5, 0);
  m.newline = equal('\n') | equal('\r');
  m.apostrophe = equal('\'');
  m.slash = equal('/');
  m.not_ascii = join([](__m256i x) { return x; });
  return m;
}

size_t Avx2::positions(uint64_t bits, size_t base, size_t* to) {
  const size_t* const first = to;
  for (; bits; bits &= bits - 1) *to++ = base + static_cast<size_t>(lowest(bits));
  return static_cast<size_t>(to - first);
}

}  // namespace

FindWindowed avx2_finder(SplitPattern pattern) { return windowed_finder<Avx2>(pattern); }

}  // namespace stoker::tokenizer
