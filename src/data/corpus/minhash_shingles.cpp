#include "data/corpus/minhash_shingles.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/error.h"

namespace stoker::corpus {
namespace {

constexpr uint64_t kMulA = 0x9E3779B97F4A7C15ull;
constexpr uint64_t kMulB = 0xD6E8FEB86659FD93ull;
constexpr size_t kShingleBlock = 1024;

// What a code point folds to: 0 separates, kDrop vanishes (a combining mark), otherwise the folded code
// point, with kAlone set when the character is a word by itself.
constexpr uint32_t kDrop = 0x80000000u;
constexpr uint32_t kAlone = 0x40000000u;
constexpr uint32_t kCodePoint = 0x1FFFFFu;

bool written_without_spaces(int32_t cp) {
  return (cp >= 0x0E00 && cp <= 0x0EFF) || (cp >= 0x1000 && cp <= 0x109F) || (cp >= 0x1780 && cp <= 0x17FF) ||
         (cp >= 0x2E80 && cp <= 0x312F) || (cp >= 0x31A0 && cp <= 0x4DBF) || (cp >= 0x4E00 && cp <= 0x9FFF) ||
         (cp >= 0xF900 && cp <= 0xFAFF) || (cp >= 0x20000 && cp <= 0x3FFFF);
}

uint32_t fold_code_point(int32_t cp) {
  switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
      return kDrop;
    case UTF8PROC_CATEGORY_ND:
      return '0';
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      break;
    default:
      return 0;
  }
  std::array<utf8proc_int32_t, 32> parts{};
  int boundary = 0;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT |
                                                      UTF8PROC_CASEFOLD | UTF8PROC_STRIPMARK);
  const auto count = utf8proc_decompose_char(cp, parts.data(), parts.size(), options, &boundary);
  const int32_t base = count > 0 && static_cast<size_t>(count) <= parts.size() ? parts[0] : cp;
  if (base >= '0' && base <= '9') return '0';
  return static_cast<uint32_t>(base) | (written_without_spaces(base) ? kAlone : 0);
}

// The basic plane as a table; rarer code points are folded when met.
const std::vector<uint32_t>& fold_table() {
  static const std::vector<uint32_t> table = [] {
    std::vector<uint32_t> built(0x10000);
    for (int32_t cp = 0; cp < 0x10000; ++cp)
      built[cp] = cp >= 0xD800 && cp < 0xE000 ? 0 : fold_code_point(cp);
    return built;
  }();
  return table;
}

const std::array<uint8_t, 256> kAsciiFold = [] {
  std::array<uint8_t, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[c] = '0';
  for (int c = 'a'; c <= 'z'; ++c) table[c] = table[c - 'a' + 'A'] = static_cast<uint8_t>(c);
  return table;
}();

uint64_t finish(uint64_t x) {
  x ^= x >> 32;
  x *= kMulB;
  x ^= x >> 29;
  x *= kMulA;
  return x ^ (x >> 32);
}

// The hash of one word, fed a byte at a time: eight bytes are gathered before each multiplication.
struct WordHash {
  uint64_t state = 0, pending = 0;
  uint32_t length = 0;
  void add(uint8_t byte) {
    pending |= static_cast<uint64_t>(byte) << (8 * (length & 7));
    if ((++length & 7) == 0) absorb();
  }
  void add_code_point(uint32_t cp) {
    if (cp < 0x80) return add(static_cast<uint8_t>(cp));
    add(static_cast<uint8_t>(0x80 | (cp & 0x3F)));
    add(static_cast<uint8_t>(0x80 | ((cp >> 6) & 0x3F)));
    add(static_cast<uint8_t>(0x80 | ((cp >> 12) & 0x3F)));
    if (cp >> 18) add(static_cast<uint8_t>(0xC0 | (cp >> 18)));
  }
  void absorb() {
    state = (state ^ pending) * kMulA;
    state ^= state >> 32;
    pending = 0;
  }
  uint64_t take() {
    uint64_t h = (state ^ pending) * kMulA;
    h = (h ^ (h >> 32)) + length * kMulB;
    state = pending = 0;
    length = 0;
    return h;
  }
};

// Walks text and calls unit(WordHash or text, ...) through the two hooks; templates so that hashing inlines.
template <typename OnWord, typename OnText>
void walk_words(std::string_view text, OnWord&& on_word, OnText&& on_char) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const begin = p;
  const auto* const end = p + text.size();
  WordHash word;
  const uint8_t* word_begin = p;
  uint32_t previous = 0;
  auto close = [&](const uint8_t* at) {
    if (word.length)
      on_word(word.take(), static_cast<size_t>(word_begin - begin), static_cast<size_t>(at - begin));
    previous = 0;
  };
  while (p < end) {
    const uint8_t byte = *p;
    if (byte < 0x80) {
      const uint8_t c = kAsciiFold[byte];
      if (c == 0) {
        close(p);
      } else if (c != '0' || previous != '0') {
        if (word.length == 0) word_begin = p;
        word.add(c);
        on_char(c, false);
        previous = c;
      }
      ++p;
      continue;
    }
    utf8proc_int32_t cp = -1;
    const auto used = utf8proc_iterate(p, end - p, &cp);
    if (used <= 0) {
      close(p);
      ++p;
      continue;
    }
    const uint32_t folded = cp < 0x10000 ? fold_table()[cp] : fold_code_point(cp);
    if (folded == 0) {
      close(p);
    } else if (folded & kAlone) {
      close(p);
      word_begin = p;
      word.add_code_point(folded & kCodePoint);
      on_char(folded & kCodePoint, true);
      close(p + used);
    } else if (!(folded & kDrop) && (folded != '0' || previous != '0')) {
      if (word.length == 0) word_begin = p;
      word.add_code_point(folded);
      on_char(folded, false);
      previous = folded;
    }
    p += used;
  }
  close(end);
}

// Rolling polynomial over the last n units; wraps modulo 2^64 exactly, so removing the oldest is exact too.
class Roller {
 public:
  Roller(int n, const std::function<void(std::span<const uint64_t>)>& sink) : n_(n), ring_(n), sink_(sink) {
    leaving_ = 1;
    for (int i = 0; i < n; ++i) leaving_ *= kMulA;
  }
  void add(uint64_t unit) {
    sum_ = sum_ * kMulA + unit;
    sum_ -= ring_[at_] * leaving_;
    ring_[at_] = unit;
    if (++at_ == n_) at_ = 0;
    if (++seen_ >= static_cast<uint64_t>(n_)) emit();
  }
  void close() {
    if (seen_ > 0 && seen_ < static_cast<uint64_t>(n_)) emit();
    if (filled_) sink_({block_.data(), filled_});
  }

 private:
  void emit() {
    block_[filled_++] = finish(sum_);
    if (filled_ == kShingleBlock) {
      sink_({block_.data(), kShingleBlock});
      filled_ = 0;
    }
  }
  int n_, at_ = 0;
  uint64_t sum_ = 0, leaving_, seen_ = 0;
  std::vector<uint64_t> ring_;
  std::array<uint64_t, kShingleBlock> block_;
  size_t filled_ = 0;
  const std::function<void(std::span<const uint64_t>)>& sink_;
};

}  // namespace

void for_each_shingle_block(std::string_view text, ShingleUnit unit, int n,
                            const std::function<void(std::span<const uint64_t>)>& sink) {
  STOKER_CHECK(n >= 1, "shingle of {} units", n);
  Roller roller(n, sink);
  if (unit == ShingleUnit::kWord) {
    walk_words(
        text, [&](uint64_t hash, size_t, size_t) { roller.add(hash); }, [](uint32_t, bool) {});
  } else {
    bool gap = false;
    walk_words(
        text, [&](uint64_t, size_t, size_t) { gap = true; },
        [&](uint32_t cp, bool) {
          if (gap) roller.add(finish(' ' + kMulA));
          gap = false;
          roller.add(finish(cp + kMulA));
        });
  }
  roller.close();
}

std::vector<uint64_t> shingle_set(std::string_view text, ShingleUnit unit, int n) {
  std::vector<uint64_t> all;
  for_each_shingle_block(text, unit, n, [&](std::span<const uint64_t> block) {
    all.insert(all.end(), block.begin(), block.end());
  });
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  size_t i = 0, j = 0, both = 0;
  while (i < a.size() && j < b.size()) {
    if (a[i] == b[j]) ++both, ++i, ++j;
    else if (a[i] < b[j]) ++i;
    else ++j;
  }
  const size_t either = a.size() + b.size() - both;
  return either ? static_cast<double>(both) / static_cast<double>(either) : 0;
}

std::string fold_words(std::string_view text) {
  std::string out;
  bool gap = false;
  walk_words(
      text, [&](uint64_t, size_t, size_t) { gap = true; },
      [&](uint32_t cp, bool) {
        if (gap) out += ' ';
        gap = false;
        utf8proc_uint8_t bytes[4];
        out.append(reinterpret_cast<char*>(bytes), utf8proc_encode_char(static_cast<int32_t>(cp), bytes));
      });
  return out;
}

void for_each_folded_word(std::string_view text,
                          const std::function<void(uint64_t hash, size_t begin, size_t end)>& word) {
  walk_words(text, word, [](uint32_t, bool) {});
}

}  // namespace stoker::corpus
