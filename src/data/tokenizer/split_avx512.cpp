#include <immintrin.h>

#include "data/tokenizer/split_batch.h"
#include "data/tokenizer/split_window.h"

namespace stoker::tokenizer {
namespace {

ClassMasks classes(const uint8_t* s) {
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

}  // namespace

FindWindowed avx512_finder(SplitPattern pattern) { return windowed_finder<classes>(pattern); }

}  // namespace stoker::tokenizer
