// data/tokenizer/split_window.h
// Splitting 64 bytes at a time: character classes as bit masks, piece starts by arithmetic on them. Included by one
// translation unit per instruction set, which supplies Simd (below); everything here has internal linkage, so that
// code for one instruction set is never merged with another's. Private to this room.
//
// A window starts where a piece starts, so nothing before it matters. Bit i says what is true of byte i. Within a
// window only what is certain is used: up to the first byte that is not ASCII, and not past the start of a run of
// whitespace whose end is not seen (a line end further on would change how it is cut). What remains goes to `scalar`,
// one piece, and the next window starts behind it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "data/tokenizer/split.h"

namespace stoker::tokenizer {
namespace {

struct ClassMasks {
  uint64_t letter, upper, digit, space, blank, newline, apostrophe, slash, not_ascii;  // blank: 0x20
};

using ScalarEnd = size_t (*)(const uint8_t* text, size_t size, size_t begin);

inline int lowest(uint64_t mask) { return __builtin_ctzll(mask); }

// Length of the contraction (apostrophe included) at s, which is an apostrophe with two readable bytes behind it; or 0.
template <bool kAnyCase>
inline int contraction_length(const uint8_t* s) {
  const uint8_t fold = kAnyCase ? 0x20 : 0;
  const uint8_t a = s[1] | fold, b = s[2] | fold;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return 0;
}

inline uint64_t bit(int i) { return i < 64 ? uint64_t{1} << i : 0; }

// Where digits are grouped by three.
inline uint64_t digit_group_starts(uint64_t digit) {
  uint64_t at = digit & ~(digit << 1), starts = at;
  const uint64_t three_before = digit & digit << 1 & digit << 2;
  while ((at = at << 3 & three_before)) starts |= at;
  return starts;
}

template <SplitPattern P>
inline uint64_t piece_starts(const ClassMasks& m, const uint8_t* s) {
  constexpr bool kGpt = P == SplitPattern::kGpt2, kO2 = P == SplitPattern::kO200k;
  const uint64_t symbol = ~(m.letter | m.digit | m.space);
  const uint64_t symbol_start = symbol & ~(symbol << 1) & ~(m.blank << 1);
  uint64_t starts = symbol_start;
  if constexpr (kGpt) {
    starts |= ((m.letter & ~(m.letter << 1)) | (m.digit & ~(m.digit << 1))) & ~(m.blank << 1);
    starts |= m.space & (~(m.space << 1) | ~(m.space >> 1));
    for (uint64_t rest = m.apostrophe & (symbol_start | 1); rest; rest &= rest - 1) {
      const int at = lowest(rest);
      if (const int length = contraction_length<false>(s + at))
        starts = (starts & ~bit(at + 1)) | bit(at + length);
    }
    return starts;
  }
  const uint64_t wide = m.space & ~m.newline;  // whitespace that is not a line end
  // A letter continues a word, or the one character before it that may begin a word.
  const uint64_t prefix = wide | symbol_start | (symbol & 1);
  starts |= m.letter & ~(m.letter << 1) & ~(prefix << 1);
  starts |= m.newline & ~(m.newline << 1) & ~(symbol << 1);
  starts |= wide & (~(wide << 1) | ~(m.space >> 1));
  if constexpr (P == SplitPattern::kQwen2 || P == SplitPattern::kQwen35) starts |= m.digit;
  else starts |= digit_group_starts(m.digit);
  if constexpr (kO2) {
    starts |= m.upper & ((m.letter & ~m.upper) << 1);
    uint64_t ends = 0;  // of contractions: they belong to the word before them, and only one to a word
    for (uint64_t rest = m.apostrophe & m.letter << 1; rest; rest &= rest - 1) {
      const int at = lowest(rest);
      if (ends & bit(at)) continue;
      if (const int length = contraction_length<true>(s + at)) {
        ends |= bit(at + length);
        starts &= ~(bit(at) | bit(at + 1) | (length == 3 ? bit(at + 2) : 0));
      }
    }
    starts |= ends;
  } else {
    for (uint64_t rest = m.apostrophe & (symbol_start | 1); rest; rest &= rest - 1) {
      const int at = lowest(rest);
      if (const int length = contraction_length<true>(s + at)) starts |= bit(at + length);
    }
  }
  return starts;
}

// Bits of `starts` that no byte outside the window can change.
template <SplitPattern P>
inline uint64_t certain(uint64_t starts, const ClassMasks& m) {
  uint64_t stop = m.not_ascii;
  if constexpr (P != SplitPattern::kGpt2)
    stop |= m.newline & (m.space & ~m.newline) << 1;  // belongs with what is before it
  // A slash sticks to line ends that stick to symbols; an apostrophe and a long s belong to the word before them.
  if constexpr (P == SplitPattern::kO200k)
    stop |= (m.slash & m.newline << 1) | (m.apostrophe & (m.not_ascii >> 1 | uint64_t{1} << 63));
  const uint64_t known = (stop & -stop) - 1;  // all ones where nothing stops
  // known is 0...01...1. The run of whitespace at its top, if there is one, keeps its first bit only.
  const uint64_t solid = known & ~m.space;
  if (!solid) return 0;
  const uint64_t behind = uint64_t{1} << (63 - __builtin_clzll(solid)) << 1;
  return starts & known & ((behind - 1) | behind) & ~uint64_t{1};
}

template <SplitPattern P, typename Simd>
size_t find_windowed(const uint8_t* s, size_t n, size_t begin, size_t* ends, size_t most, ScalarEnd scalar) {
  constexpr size_t kReadable = 64 + 2;  // a contraction is looked for up to two bytes behind the window
  size_t count = 0;
  while (begin + kReadable <= n && count + 64 <= most) {
    const ClassMasks m = Simd::classes(s + begin);
    const uint64_t starts = certain<P>(piece_starts<P>(m, s + begin), m);
    if (!starts) {
      ends[count++] = begin = scalar(s, n, begin);
      continue;
    }
    count += Simd::positions(starts, begin, ends + count);
    begin += static_cast<size_t>(63 - __builtin_clzll(starts));
  }
  // What is left has no window, or no room for all that one may hold: unless nothing was found it waits for the next call.
  for (const size_t last = count ? count : most; begin < n && count < last;)
    ends[count++] = begin = scalar(s, n, begin);
  return count;
}

// Simd::classes(bytes) of the 64 at hand; Simd::positions(bits, base, to) writes base + the place of each bit and returns how
// many there are: room for 64 at `to`.
template <typename Simd>
constexpr auto windowed_finder(SplitPattern pattern) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return find_windowed<SplitPattern::kGpt2, Simd>;
    case SplitPattern::kLlama3:
      return find_windowed<SplitPattern::kLlama3, Simd>;
    case SplitPattern::kQwen2:
      return find_windowed<SplitPattern::kQwen2, Simd>;
    case SplitPattern::kQwen35:
      return find_windowed<SplitPattern::kQwen35, Simd>;
    case SplitPattern::kCl100k:
      return find_windowed<SplitPattern::kCl100k, Simd>;
    case SplitPattern::kO200k:
      break;
  }
  return find_windowed<SplitPattern::kO200k, Simd>;
}

}  // namespace
}  // namespace stoker::tokenizer
