// data/tokenizer/split_scalar.h
// One piece at a time, one template per pattern: the truth that the vector paths are tested against, and what
// they call where a text is not plain ASCII. Private to this room.
#pragma once
#include <array>

#include "data/tokenizer/split.h"
#include "data/tokenizer/unicode_table.h"

namespace stoker::tokenizer {

inline constexpr std::array<uint8_t, 128> kAsciiClass = [] {
  std::array<uint8_t, 128> t{};
  for (size_t c = 0; c < 128; ++c) {
    if (c >= 'A' && c <= 'Z') t[c] = kUpper;
    else if (c >= 'a' && c <= 'z') t[c] = kLower;
    else if (c >= '0' && c <= '9') t[c] = kNumber;
    else if (c == ' ' || (c >= 9 && c <= 13)) t[c] = kSpace;
    else t[c] = kOther;
  }
  return t;
}();

template <SplitPattern P>
class Splitter {
 public:
  Splitter(std::string_view text, const UnicodeTable& table)
      : s_(reinterpret_cast<const uint8_t*>(text.data())), n_(text.size()), table_(table) {}

  size_t piece_end(size_t p) const {
    if constexpr (P == SplitPattern::kO200k) return o200k(p);
    if constexpr (P == SplitPattern::kGpt2) return gpt2(p);
    return llama(p);
  }

 private:
  struct Char {
    uint8_t cls, length;
  };
  Char at(size_t p) const {
    if (s_[p] < 0x80) return {kAsciiClass[s_[p]], 1};
    const Utf8Char c = decode_utf8(s_ + p, n_ - p);
    return {c.valid ? table_.char_class(c.code) : uint8_t{kOther}, c.length};
  }
  bool newline(size_t p) const { return s_[p] == '\n' || s_[p] == '\r'; }

  // \p{L}, and with it \p{M} where the pattern's letters include marks.
  static bool word(uint8_t cls) { return is_letter(cls) || (P == SplitPattern::kQwen35 && cls == kMark); }
  // [^\s\p{L}\p{N}], less the marks where they are letters.
  static bool symbol(uint8_t cls) { return cls == kOther || (P != SplitPattern::kQwen35 && cls == kMark); }

  template <typename Pred>
  size_t run(size_t p, Pred pred) const {
    while (p < n_) {
      const Char c = at(p);
      if (!pred(c.cls)) break;
      p += c.length;
    }
    return p;
  }

  // 's 't 're 've 'm 'll 'd at p, or 0. Without regard to case (long s folds to s) except in GPT-2's pattern.
  size_t contraction(size_t p) const {
    if (p + 1 >= n_ || s_[p] != '\'') return 0;
    constexpr bool kAnyCase = P != SplitPattern::kGpt2;
    auto lower = [](uint8_t c) -> uint8_t { return kAnyCase && c >= 'A' && c <= 'Z' ? c | 0x20 : c; };
    const uint8_t a = lower(s_[p + 1]), b = p + 2 < n_ ? lower(s_[p + 2]) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return p + 3;
    if (kAnyCase && a == 0xC5 && p + 2 < n_ && s_[p + 2] == 0xBF) return p + 3;
    return 0;
  }

  size_t digits(size_t p, int most) const {
    for (int i = 0; i < most && p < n_; ++i) {
      const Char c = at(p);
      if (c.cls != kNumber) break;
      p += c.length;
    }
    return p;
  }

  // From the start of a run of whitespace, what \s*[\r\n]+ | \s+(?!\S) | \s+ and their kin take.
  size_t whitespace(size_t p) const {
    size_t last = p, newline_end = 0, q = p;
    while (q < n_) {
      const Char c = at(q);
      if (c.cls != kSpace) break;
      last = q;
      if (newline(q)) newline_end = q + 1;
      q += c.length;
    }
    if (P == SplitPattern::kCl100k && q == n_) return n_;
    if (P != SplitPattern::kGpt2 && newline_end) return newline_end;
    if (q == n_ || last == p) return q;
    return last;
  }

  size_t gpt2(size_t p) const {
    if (const size_t end = contraction(p)) return end;
    size_t q = p;
    Char c = at(p);
    if (s_[p] == ' ' && p + 1 < n_) {
      const Char d = at(p + 1);
      if (d.cls != kSpace) q = p + 1, c = d;
    }
    if (is_letter(c.cls)) return run(q + c.length, is_letter);
    if (c.cls == kNumber) return run(q + c.length, [](uint8_t k) { return k == kNumber; });
    if (c.cls != kSpace) return run(q + c.length, symbol);
    return whitespace(p);
  }

  size_t llama(size_t p) const {
    if (const size_t end = contraction(p)) return end;
    const Char c = at(p);
    if (word(c.cls)) return run(p + c.length, word);
    if (c.cls == kNumber)
      return P == SplitPattern::kQwen2 || P == SplitPattern::kQwen35 ? p + c.length : digits(p, 3);
    const size_t next = p + c.length;
    if (next < n_ && !newline(p)) {
      const Char d = at(next);
      if (word(d.cls)) return run(next + d.length, word);
      if (s_[p] == ' ' && symbol(d.cls)) return symbols(next + d.length);
    }
    return symbol(c.cls) ? symbols(next) : whitespace(p);
  }

  // The rest of a run of symbols, and the line ends (for o200k also slashes) that stick to it.
  size_t symbols(size_t p) const {
    p = run(p, symbol);
    while (p < n_ && (newline(p) || (P == SplitPattern::kO200k && s_[p] == '/'))) ++p;
    return p;
  }

  static bool upper_like(uint8_t c) { return c == kUpper || c == kLetter || c == kMark; }
  static bool lower_like(uint8_t c) { return c == kLower || c == kLetter || c == kMark; }

  // U*l+ at p (U upper_like, l lower_like), or 0. Backtracking in closed form: U* first takes the whole run
  // of U; if no l follows, the match ends behind the last character of that run that is also l.
  size_t cased_word(size_t p) const {
    size_t q = p, last_both_end = 0;
    while (q < n_) {
      const Char c = at(q);
      if (!upper_like(c.cls)) break;
      q += c.length;
      if (lower_like(c.cls)) last_both_end = q;
    }
    if (q < n_) {
      const Char c = at(q);
      if (c.cls == kLower) return run(q + c.length, lower_like);
    }
    return last_both_end;
  }

  size_t o200k(size_t p) const {
    const Char c = at(p);
    auto with_contraction = [&](size_t q) {
      const size_t end = contraction(q);
      return end ? end : q;
    };
    const bool may_prefix = !newline(p) && !is_letter(c.cls) && c.cls != kNumber;
    const size_t next = p + c.length;
    if (may_prefix && next < n_)
      if (const size_t end = cased_word(next)) return with_contraction(end);
    if (upper_like(c.cls) || c.cls == kLower)
      if (const size_t end = cased_word(p)) return with_contraction(end);
    if (may_prefix && next < n_)
      if (const size_t end = run(next, upper_like); end != next) return with_contraction(end);
    if (upper_like(c.cls)) return with_contraction(run(p, upper_like));
    if (c.cls == kNumber) return digits(p, 3);
    if (s_[p] == ' ' && next < n_) {
      const Char d = at(next);
      if (symbol(d.cls)) return symbols(next + d.length);
    }
    return symbol(c.cls) ? symbols(next) : whitespace(p);
  }

  const uint8_t* s_;
  size_t n_;
  const UnicodeTable& table_;
};

// Calls body.template operator()<P>() for the pattern.
template <typename Body>
decltype(auto) with_split(SplitPattern pattern, Body&& body) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return body.template operator()<SplitPattern::kGpt2>();
    case SplitPattern::kLlama3:
      return body.template operator()<SplitPattern::kLlama3>();
    case SplitPattern::kQwen2:
      return body.template operator()<SplitPattern::kQwen2>();
    case SplitPattern::kQwen35:
      return body.template operator()<SplitPattern::kQwen35>();
    case SplitPattern::kCl100k:
      return body.template operator()<SplitPattern::kCl100k>();
    case SplitPattern::kO200k:
      break;
  }
  return body.template operator()<SplitPattern::kO200k>();
}

}  // namespace stoker::tokenizer
