#include <immintrin.h>

#include "data/tokenizer/split_batch.h"
#include "data/tokenizer/split_window.h"

namespace stoker::tokenizer {
namespace {

struct Avx512 {
  static ClassMasks classes(const uint8_t* s);
  static size_t positions(uint64_t bits, size_t base, size_t* to);
};

ClassMasks Avx512::classes(const uint8_t* s) {
  const __m512i v = _mm512_loadu_si512(s);
  auto below = [](__m512i x, char first, char count) {
    return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(x, _mm512_set1_epi8(first)), _mm512_set1_epi8(count));
  };
  auto equal = [&](char c) { return _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(c)); };
  ClassMasks m;
  m.letter = below(_mm512_or_si512(v, _mm512_set1_epi8(0x20)), 'a', 26);
  m.upper = below(v, 'A', 26);
  m.digit = below(v, '0', 10);
  m.blank = equal(' ');
  m.space = m.blank | below(v, 9, 5);
  m.newline = equal('\n') | equal('\r');
  m.apostrophe = equal('\'');
  m.slash = equal('/');
  m.not_ascii = _mm512_movepi8_mask(v);
  return m;
}

// Eight at a time and without a branch: how many pieces a window holds cannot be predicted.
size_t Avx512::positions(uint64_t bits, size_t base, size_t* to) {
  const size_t* const first = to;
  __m512i at = _mm512_add_epi64(_mm512_set1_epi64(static_cast<int64_t>(base)),
                                _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const auto eight = static_cast<__mmask8>(bits >> 8 * i);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(eight, at));
    to += __builtin_popcount(eight);
    at = _mm512_add_epi64(at, _mm512_set1_epi64(8));
  }
  return static_cast<size_t>(to - first);
}

}  // namespace

FindWindowed avx512_finder(SplitPattern pattern) { return windowed_finder<Avx512>(pattern); }

}  // namespace stoker::tokenizer
