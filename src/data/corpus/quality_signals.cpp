#include "data/corpus/quality_signals.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/hash.h"

namespace stoker::corpus {
namespace {

constexpr std::array<std::string_view, kSignalCount> kNames = {"bytes",
                                                               "characters",
                                                               "words",
                                                               "mean_word_length",
                                                               "hash_per_word",
                                                               "ellipsis_per_word",
                                                               "bullet_lines",
                                                               "ellipsis_lines",
                                                               "alpha_words",
                                                               "stop_words",
                                                               "stop_word_count",
                                                               "duplicate_lines",
                                                               "duplicate_paragraphs",
                                                               "duplicate_line_characters",
                                                               "duplicate_paragraph_characters",
                                                               "top_2_gram",
                                                               "top_3_gram",
                                                               "top_4_gram",
                                                               "duplicate_5_gram",
                                                               "duplicate_6_gram",
                                                               "duplicate_7_gram",
                                                               "duplicate_8_gram",
                                                               "duplicate_9_gram",
                                                               "duplicate_10_gram",
                                                               "lines",
                                                               "punctuated_lines",
                                                               "short_lines",
                                                               "newlines_per_word",
                                                               "sentences",
                                                               "curly_braces",
                                                               "lorem_ipsum",
                                                               "javascript_lines",
                                                               "policy_lines",
                                                               "longest_word",
                                                               "long_lines",
                                                               "non_ascii",
                                                               "upper_case",
                                                               "digits",
                                                               "replacement"};

bool is_continuation(char c) { return (c & 0xC0) == 0x80; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
bool is_ascii_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

uint32_t characters(std::string_view s) {
  return static_cast<uint32_t>(s.size() -
                               static_cast<size_t>(std::count_if(s.begin(), s.end(), is_continuation)));
}

// Bytes of the blank at s[at], 0 when there is none: ASCII blanks, U+00A0, U+2000..200A, U+3000.
size_t blank_at(std::string_view s, size_t at) {
  const char c = s[at];
  if (is_ascii_blank(c)) return 1;
  if (c == '\xC2' && at + 1 < s.size() && s[at + 1] == '\xA0') return 2;
  if (c == '\xE2' && at + 2 < s.size() && s[at + 1] == '\x80' &&
      static_cast<unsigned char>(s[at + 2]) >= 0x80 && static_cast<unsigned char>(s[at + 2]) <= 0x8A)
    return 3;
  if (c == '\xE3' && at + 2 < s.size() && s[at + 1] == '\x80' && s[at + 2] == '\x80') return 3;
  return 0;
}

// A counter of 64-bit keys that is emptied in O(1): cells carry the round they belong to.
class KeyCounts {
 public:
  void start(size_t keys) {
    size_t wanted = 64;
    while (wanted < keys * 2) wanted *= 2;
    if (wanted > cells_.size()) {
      cells_.assign(wanted, {});
      round_ = 0;
    }
    mask_ = wanted - 1;
    if (++round_ == 0) {
      std::fill(cells_.begin(), cells_.end(), Cell{});
      round_ = 1;
    }
  }
  // The count after adding one.
  uint32_t add(uint64_t key) {
    for (size_t at = (key * 0x9E3779B97F4A7C15ull >> 20) & mask_;; at = (at + 1) & mask_) {
      Cell& cell = cells_[at];
      if (cell.round != round_) {
        cell = {key, round_, 1};
        return 1;
      }
      if (cell.key == key) return ++cell.count;
    }
  }

 private:
  struct Cell {
    uint64_t key = 0;
    uint32_t round = 0, count = 0;
  };
  std::vector<Cell> cells_;
  size_t mask_ = 0;
  uint32_t round_ = 0;
};

struct Word {
  uint64_t hash;
  uint32_t characters;
};

struct Scratch {
  std::vector<Word> words;
  KeyCounts counts;
};

constexpr uint64_t kRoll = 0x9E3779B97F4A7C15ull;

uint64_t mixed(uint64_t x) {
  x ^= x >> 32;
  x *= 0xD6E8FEB86659FD93ull;
  return x ^ (x >> 32);
}

// Calls each(index of first word, hash, characters) for every n-gram; the hash is rolled modulo 2^64.
template <typename Each>
void for_each_gram(const std::vector<Word>& words, size_t n, Each&& each) {
  if (words.size() < n) return;
  uint64_t sum = 0, leaving = 1, length = 0;
  for (size_t i = 0; i < n; ++i) leaving *= kRoll;
  for (size_t i = 0; i < words.size(); ++i) {
    sum = sum * kRoll + words[i].hash;
    length += words[i].characters;
    if (i >= n) {
      sum -= words[i - n].hash * leaving;
      length -= words[i - n].characters;
    }
    if (i + 1 >= n) each(i + 1 - n, mixed(sum), length);
  }
}

double top_gram(const std::vector<Word>& words, size_t n, KeyCounts& counts) {
  counts.start(words.size());
  uint64_t most = 0, most_characters = 0;
  for_each_gram(words, n, [&](size_t, uint64_t key, uint64_t length) {
    const uint64_t seen = counts.add(key);
    const uint64_t whole = length + n - 1;  // with the blanks between
    if (seen > most || (seen == most && whole > most_characters)) most = seen, most_characters = whole;
  });
  return most < 2 ? 0 : static_cast<double>(most) * static_cast<double>(most_characters);
}

double duplicate_grams(const std::vector<Word>& words, size_t n, KeyCounts& counts) {
  counts.start(words.size());
  double repeated = 0;
  size_t free_from = 0;
  for_each_gram(words, n, [&](size_t first, uint64_t key, uint64_t length) {
    if (first < free_from) return;
    if (counts.add(key) > 1) {
      repeated += static_cast<double>(length);
      free_from = first + n;
    }
  });
  return repeated;
}

bool ends_with_any(std::string_view s, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view e) { return s.ends_with(e); });
}

bool contains_lower(std::string_view text, std::string_view needle) {
  if (text.size() < needle.size()) return false;
  for (size_t at = 0; at + needle.size() <= text.size(); ++at) {
    if (lower(text[at]) != needle[0]) continue;
    size_t i = 1;
    while (i < needle.size() && lower(text[at + i]) == needle[i]) ++i;
    if (i == needle.size()) return true;
  }
  return false;
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && is_ascii_blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_ascii_blank(s.back())) s.remove_suffix(1);
  return s;
}

int stop_word_index(std::string_view word) {
  static constexpr std::array<std::string_view, 8> kStop = {"the", "be",   "to",   "of",
                                                            "and", "that", "have", "with"};
  if (word.size() > 4) return -1;
  char small[4];
  for (size_t i = 0; i < word.size(); ++i) small[i] = lower(word[i]);
  for (size_t i = 0; i < kStop.size(); ++i)
    if (std::string_view(small, word.size()) == kStop[i]) return static_cast<int>(i);
  return -1;
}

struct WordCounts {
  uint64_t all = 0, real = 0, real_characters = 0, alpha = 0, stops = 0, longest = 0;
  unsigned stops_seen = 0;
};

void scan_words(std::string_view text, std::vector<Word>& words, WordCounts& counts) {
  words.clear();
  for (size_t at = 0; at < text.size();) {
    if (const size_t blank = blank_at(text, at)) {
      at += blank;
      continue;
    }
    const size_t begin = at;
    bool letter = false, digit = false;
    uint32_t length = 0;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x80) {
        if (is_ascii_blank(c)) break;
        letter |= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        digit |= c >= '0' && c <= '9';
        ++length;
      } else if (byte >= 0xC0) {
        if (blank_at(text, at)) break;
        // General punctuation (U+2000..206F) and CJK punctuation are no letters; other scripts are.
        const bool punctuation =
            (c == '\xE2' && at + 1 < text.size() && (text[at + 1] == '\x80' || text[at + 1] == '\x81')) ||
            (c == '\xE3' && at + 1 < text.size() && text[at + 1] == '\x80') || (c == '\xC2');
        letter |= !punctuation;
        ++length;
      }
    }
    const std::string_view word = text.substr(begin, at - begin);
    words.push_back({hash64(word), length});
    ++counts.all;
    counts.alpha += letter;
    counts.longest = std::max<uint64_t>(counts.longest, length);
    if (letter || digit) {
      ++counts.real;
      counts.real_characters += length;
    }
    std::string_view bare = word;
    while (!bare.empty() && !((bare.back() | 32) >= 'a' && (bare.back() | 32) <= 'z')) bare.remove_suffix(1);
    if (const int stop = stop_word_index(bare); stop >= 0) {
      ++counts.stops;
      counts.stops_seen |= 1u << stop;
    }
  }
}

struct Bytes {
  uint64_t characters = 0, newlines = 0, digits = 0, upper = 0, lower = 0, non_ascii = 0, hashes = 0,
           braces = 0, ellipses = 0, replacements = 0, sentences = 0;
};

Bytes scan_bytes(std::string_view text) {
  Bytes n;
  bool sentence_open = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (is_continuation(c)) continue;
    ++n.characters;
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      ++n.non_ascii;
      const std::string_view three = text.substr(at, 3);
      n.replacements += three == "\xEF\xBF\xBD";
      n.ellipses += three == "\xE2\x80\xA6";
      const bool stop = three == "\xE3\x80\x82" || three == "\xEF\xBC\x81" || three == "\xEF\xBC\x9F";
      n.sentences += stop && sentence_open;
      sentence_open = !stop;
      continue;
    }
    n.newlines += c == '\n';
    n.digits += c >= '0' && c <= '9';
    n.upper += c >= 'A' && c <= 'Z';
    n.lower += c >= 'a' && c <= 'z';
    n.hashes += c == '#';
    n.braces += c == '{';
    if (c == '.' && text.substr(at, 3) == "..." && (at == 0 || text[at - 1] != '.')) ++n.ellipses;
    if (c == '.' || c == '?' || c == '!') {
      const bool at_end = at + 1 == text.size() || is_ascii_blank(text[at + 1]) || text[at + 1] == '"' ||
                          text[at + 1] == '\'' || text[at + 1] == ')';
      if (at_end && sentence_open) ++n.sentences, sentence_open = false;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
      sentence_open = true;
    }
  }
  n.sentences += sentence_open;
  return n;
}

}  // namespace

std::string_view signal_name(int signal) {
  return signal >= 0 && signal < kSignalCount ? kNames[static_cast<size_t>(signal)] : std::string_view();
}

int signal_by_name(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  return found == kNames.end() ? -1 : static_cast<int>(found - kNames.begin());
}

Signals measure_quality(std::string_view text) {
  static thread_local Scratch scratch;
  Signals out{};
  auto set = [&](Signal signal, double value) { out[signal] = static_cast<float>(value); };
  auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };

  WordCounts words;
  scan_words(text, scratch.words, words);
  const Bytes bytes = scan_bytes(text);
  const auto length = static_cast<double>(bytes.characters);
  const auto all_words = static_cast<double>(words.all);
  set(kBytes, static_cast<double>(text.size()));
  set(kCharacters, length);
  set(kWords, static_cast<double>(words.real));
  set(kMeanWordLength, share(static_cast<double>(words.real_characters), static_cast<double>(words.real)));
  set(kHashPerWord, share(static_cast<double>(bytes.hashes), all_words));
  set(kEllipsisPerWord, share(static_cast<double>(bytes.ellipses), all_words));
  set(kAlphaWords, share(static_cast<double>(words.alpha), all_words));
  set(kStopWords, __builtin_popcount(words.stops_seen));
  set(kStopWordCount, static_cast<double>(words.stops));
  set(kLongestWord, static_cast<double>(words.longest));
  set(kNewlinesPerWord, share(static_cast<double>(bytes.newlines), all_words));
  set(kSentences, static_cast<double>(bytes.sentences));
  set(kCurlyBraces, static_cast<double>(bytes.braces));
  set(kNonAscii, share(static_cast<double>(bytes.non_ascii), length));
  set(kUpperCase, share(static_cast<double>(bytes.upper), static_cast<double>(bytes.upper + bytes.lower)));
  set(kDigits, share(static_cast<double>(bytes.digits), length));
  set(kReplacement, share(static_cast<double>(bytes.replacements), length));

  double lines = 0, bullets = 0, ellipses = 0, punctuated = 0, shorts = 0, longs = 0, javascript = 0,
         policy = 0;
  double repeated_lines = 0, repeated_line_characters = 0;
  scratch.counts.start(bytes.newlines + 1);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trimmed(text.substr(at, end - at));
    at = end + 1;
    if (line.empty()) continue;
    const uint32_t line_characters = characters(line);
    ++lines;
    bullets += line.starts_with("- ") || line.starts_with("* ") || line.starts_with("\xE2\x80\xA2") ||
               line.starts_with("\xE2\x97\x8F") || line.starts_with("\xE2\x80\xA3") ||
               line.starts_with("\xE2\x96\xAA");
    ellipses += ends_with_any(line, {"...", "\xE2\x80\xA6"});
    punctuated += ends_with_any(line, {".", "?", "!", "\"", "'", "\xE2\x80\x9D", "\xE2\x80\x99",
                                       "\xE2\x80\xA6", "\xE3\x80\x82", "\xEF\xBC\x81", "\xEF\xBC\x9F"});
    shorts += line_characters <= 30;
    longs += line_characters >= 200;
    if (scratch.counts.add(hash64(line)) > 1) {
      ++repeated_lines;
      repeated_line_characters += line_characters;
    }
    javascript += contains_lower(line, "javascript");
    policy += contains_lower(line, "cookie policy") || contains_lower(line, "uses cookies") ||
              contains_lower(line, "use cookies") || contains_lower(line, "use of cookies") ||
              contains_lower(line, "terms of use") || contains_lower(line, "privacy policy");
  }
  set(kLines, lines);
  set(kBulletLines, share(bullets, lines));
  set(kEllipsisLines, share(ellipses, lines));
  set(kPunctuatedLines, share(punctuated, lines));
  set(kShortLines, share(shorts, lines));
  set(kLongLines, longs);
  set(kJavascriptLines, share(javascript, lines));
  set(kPolicyLines, share(policy, lines));
  set(kDuplicateLines, share(repeated_lines, lines));
  set(kDuplicateLineCharacters, share(repeated_line_characters, length));
  double lorem = 0;
  for (size_t at = 0; (at = text.find("orem ipsum", at)) != std::string_view::npos; ++at) ++lorem;
  set(kLoremIpsum, lorem);

  double paragraphs = 0, repeated_paragraphs = 0, repeated_paragraph_characters = 0;
  scratch.counts.start(bytes.newlines + 1);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find("\n\n", at), text.size());
    const std::string_view paragraph = trimmed(text.substr(at, end - at));
    at = end + 2;
    if (paragraph.empty()) continue;
    ++paragraphs;
    if (scratch.counts.add(hash64(paragraph)) > 1) {
      ++repeated_paragraphs;
      repeated_paragraph_characters += characters(paragraph);
    }
  }
  set(kDuplicateParagraphs, share(repeated_paragraphs, paragraphs));
  set(kDuplicateParagraphCharacters, share(repeated_paragraph_characters, length));
  for (size_t n = 2; n <= 4; ++n)
    out[kTop2Gram + n - 2] = static_cast<float>(share(top_gram(scratch.words, n, scratch.counts), length));
  for (size_t n = 5; n <= 10; ++n)
    out[kDuplicate5Gram + n - 5] =
        static_cast<float>(share(duplicate_grams(scratch.words, n, scratch.counts), length));
  return out;
}

}  // namespace stoker::corpus
