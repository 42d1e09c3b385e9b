#include "data/corpus/quality_signals.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "data/corpus/ascii.h"

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

uint32_t characters(std::string_view s) {
  return static_cast<uint32_t>(s.size() -
                               static_cast<size_t>(std::count_if(s.begin(), s.end(), is_continuation)));
}

// Bytes of the blank at s[at], 0 when there is none: ASCII blanks, U+00A0, U+2000..200A, U+3000.
size_t blank_at(std::string_view s, size_t at) {
  const char c = s[at];
  if (ascii_blank(c)) return 1;
  if (c == '\xC2' && at + 1 < s.size() && s[at + 1] == '\xA0') return 2;
  if (c == '\xE2' && at + 2 < s.size() && s[at + 1] == '\x80' &&
      static_cast<unsigned char>(s[at + 2]) >= 0x80 && static_cast<unsigned char>(s[at + 2]) <= 0x8A)
    return 3;
  if (c == '\xE3' && at + 2 < s.size() && s[at + 1] == '\x80' && s[at + 2] == '\x80') return 3;
  return 0;
}

// A counter of 64-bit keys. A cell tells keys apart by 32 bits beside its place.
class KeyCounts {
 public:
  void start(size_t keys) {
    size_t wanted = 64;
    while (wanted < keys * 2) wanted *= 2;
    if (wanted > cells_.size()) cells_.resize(wanted);
    std::fill_n(cells_.begin(), wanted, Cell{});
    mask_ = wanted - 1;
  }
  // The count after adding one.
  uint32_t add(uint64_t key) { return ++find(key).count; }
  uint32_t count(uint64_t key) { return find(key).count; }

 private:
  struct Cell {
    uint32_t tag = 0, count = 0;
  };
  Cell& find(uint64_t key) {
    const auto tag = static_cast<uint32_t>(key >> 32);
    for (size_t at = (key * 0x9E3779B97F4A7C15ull >> 20) & mask_;; at = (at + 1) & mask_) {
      Cell& cell = cells_[at];
      if (cell.count == 0) cell.tag = tag;
      if (cell.tag == tag) return cell;
    }
  }
  std::vector<Cell> cells_;
  size_t mask_ = 0;
};

struct Word {
  uint64_t hash;
  uint32_t characters;
};

// The n-gram that starts at word `first`: its rolled hash, before mixing, and its characters.
struct Gram {
  uint64_t sum;
  uint32_t first, characters;
};

struct Scratch {
  std::vector<Word> words;
  std::vector<Gram> grams;
  KeyCounts counts;
  std::string lowered;
  std::vector<size_t> lines;
};

constexpr uint64_t kRoll = 0x9E3779B97F4A7C15ull;

uint64_t mixed(uint64_t x) {
  x ^= x >> 32;
  x *= 0xD6E8FEB86659FD93ull;
  return x ^ (x >> 32);
}

// An n-gram can only repeat where the (n-1)-gram that begins it does, so each n looks at what the one before left over;
// in most texts that is little.
void start_grams(Scratch& s) {
  s.grams.clear();
  for (size_t i = 0; i < s.words.size(); ++i)
    s.grams.push_back({s.words[i].hash, static_cast<uint32_t>(i), s.words[i].characters});
}

// From the repeating (n-1)-grams to the repeating n-grams, in the order of the text.
void extend_grams(Scratch& s, size_t n) {
  size_t kept = 0;
  for (const Gram& g : s.grams) {
    const size_t last = g.first + n - 1;
    if (last >= s.words.size()) continue;
    s.grams[kept++] = {g.sum * kRoll + s.words[last].hash, g.first, g.characters + s.words[last].characters};
  }
  s.grams.resize(kept);
  s.counts.start(kept);
  for (const Gram& g : s.grams) s.counts.add(mixed(g.sum));
  std::erase_if(s.grams, [&](const Gram& g) { return s.counts.count(mixed(g.sum)) < 2; });
}

// Occurrences times length of the most frequent one, the longest among equals; 0 when nothing repeats.
double top_gram(Scratch& s, size_t n) {
  uint32_t most = 0;
  uint64_t most_characters = 0;
  for (const Gram& g : s.grams) {
    const uint32_t seen = s.counts.count(mixed(g.sum));
    const uint64_t whole = g.characters + n - 1;  // with the blanks between
    if (seen > most || (seen == most && whole > most_characters)) most = seen, most_characters = whole;
  }
  return static_cast<double>(most) * static_cast<double>(most_characters);
}

// Characters in n-grams seen before, none counted twice.
double duplicate_grams(Scratch& s, size_t n) {
  s.counts.start(s.grams.size());
  double repeated = 0;
  size_t free_from = 0;
  for (const Gram& g : s.grams) {
    if (g.first < free_from) continue;
    if (s.counts.add(mixed(g.sum)) > 1) {
      repeated += static_cast<double>(g.characters);
      free_from = g.first + n;
    }
  }
  return repeated;
}

bool ends_with_any(std::string_view s, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view e) { return s.ends_with(e); });
}

// Lines that hold one of the phrases, which are lower case. `rare` is part of each of them, and rarer than they are long.
uint64_t lines_with(std::string_view lowered, std::string_view rare,
                    std::initializer_list<std::string_view> phrases, std::vector<size_t>& lines) {
  uint64_t found = 0;
  for (size_t at = 0; at < lowered.size();) {
    const void* hit = memmem(lowered.data() + at, lowered.size() - at, rare.data(), rare.size());
    if (!hit) break;
    const auto place = static_cast<size_t>(static_cast<const char*>(hit) - lowered.data());
    const size_t before = lowered.substr(0, place).rfind('\n');
    const size_t begin = before == std::string_view::npos ? 0 : before + 1;
    at = std::min(lowered.find('\n', place), lowered.size());
    const std::string_view line = lowered.substr(begin, at - begin);
    if (std::any_of(phrases.begin(), phrases.end(),
                    [&](std::string_view p) { return line.find(p) != std::string_view::npos; })) {
      lines.push_back(begin);
      ++found;
    }
  }
  return found;
}

int stop_word_index(std::string_view word) {
  constexpr auto packed = [](std::string_view w) {
    uint32_t out = 0;
    for (const char c : w) out = out << 8 | static_cast<uint8_t>(c);
    return out;
  };
  if (word.size() < 2 || word.size() > 4) return -1;
  uint32_t small = 0;
  for (const char c : word) small = small << 8 | static_cast<uint8_t>(ascii_lower(c));
  switch (small) {
    case packed("the"):
      return 0;
    case packed("be"):
      return 1;
    case packed("to"):
      return 2;
    case packed("of"):
      return 3;
    case packed("and"):
      return 4;
    case packed("that"):
      return 5;
    case packed("have"):
      return 6;
    case packed("with"):
      return 7;
    default:
      return -1;
  }
}

struct WordCounts {
  uint64_t all = 0, real = 0, real_characters = 0, alpha = 0, stops = 0, longest = 0;
  unsigned stops_seen = 0;
};

enum CharacterKind : uint8_t { kAscii = 1, kBlank = 2, kLetter = 4, kDigit = 8, kContinuation = 16 };
constexpr auto kCharacterKinds = [] {
  std::array<uint8_t, 256> table{};
  for (size_t c = 0; c < 256; ++c) {
    if (c >= 0x80) {
      table[c] = c < 0xC0 ? kContinuation : 0;
      continue;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9', blank = c == ' ' || (c >= '\t' && c <= '\r');
    table[c] =
        static_cast<uint8_t>(kAscii | (letter ? kLetter : 0) | (digit ? kDigit : 0) | (blank ? kBlank : 0));
  }
  return table;
}();

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
    uint8_t kinds = 0;
    for (; at < text.size(); ++at) {
      const uint8_t kind = kCharacterKinds[static_cast<uint8_t>(text[at])];
      if (!(kind & kAscii)) {
        if (kind & kContinuation) continue;
        if (blank_at(text, at)) break;
        // General punctuation (U+2000..206F) and CJK punctuation are no letters; other scripts are.
        const char c = text[at];
        const bool punctuation =
            (c == '\xE2' && at + 1 < text.size() && (text[at + 1] == '\x80' || text[at + 1] == '\x81')) ||
            (c == '\xE3' && at + 1 < text.size() && text[at + 1] == '\x80') || (c == '\xC2');
        letter |= !punctuation;
        ++length;
        continue;
      }
      if (kind & kBlank) break;
      kinds |= kind;
      ++length;
    }
    letter |= (kinds & kLetter) != 0;
    digit |= (kinds & kDigit) != 0;
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

// What ends a sentence or needs more than its own byte to be understood.
constexpr auto kSpecial = [] {
  std::array<uint8_t, 256> table{};
  for (size_t c = 0xC0; c < 256; ++c) table[c] = 1;
  for (const char c : {'.', '?', '!'}) table[static_cast<uint8_t>(c)] = 1;
  return table;
}();

bool is_ascii_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

Bytes scan_bytes(std::string_view text) {
  Bytes n;
  std::array<std::array<uint32_t, 256>, 4> counts{};
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  constexpr size_t kPart = size_t{1} << 30;  // 32 bits count a part
  std::array<uint64_t, 256> seen{};
  for (size_t begin = 0; begin < text.size(); begin += kPart) {
    const size_t end = std::min(text.size(), begin + kPart);
    size_t at = begin;
    for (; at + 4 <= end; at += 4)
      for (size_t lane = 0; lane < 4; ++lane) ++counts[lane][bytes[at + lane]];
    for (; at < end; ++at) ++counts[0][bytes[at]];
    for (size_t c = 0; c < 256; ++c)
      for (auto& lane : counts) seen[c] += std::exchange(lane[c], 0);
  }
  auto sum = [&](size_t first, size_t last) {
    uint64_t all = 0;
    for (size_t c = first; c <= last; ++c) all += seen[c];
    return all;
  };
  n.characters = text.size() - sum(0x80, 0xBF);
  n.non_ascii = sum(0xC0, 0xFF);
  n.newlines = seen['\n'];
  n.digits = sum('0', '9');
  n.upper = sum('A', 'Z');
  n.lower = sum('a', 'z');
  n.hashes = seen['#'];
  n.braces = seen['{'];
  // A sentence is open once a letter, a digit or a character beyond ASCII came behind the last end of one.
  bool open = false;
  size_t looked = 0;
  auto open_before = [&](size_t at) {
    for (size_t i = at; !open && i-- > looked;) open = is_ascii_alnum(text[i]);
    looked = at + 1;
    return open;
  };
  for (size_t at = 0; at < text.size(); ++at) {
    if (!kSpecial[bytes[at]]) continue;
    const char c = text[at];
    if (bytes[at] >= 0x80) {
      const std::string_view three = text.substr(at, 3);
      n.replacements += three == "\xEF\xBF\xBD";
      n.ellipses += three == "\xE2\x80\xA6";
      const bool stop = three == "\xE3\x80\x82" || three == "\xEF\xBC\x81" || three == "\xEF\xBC\x9F";
      n.sentences += stop && open_before(at);
      open = !stop;
      looked = at + 1;
      continue;
    }
    if (c == '.' && text.substr(at, 3) == "..." && (at == 0 || text[at - 1] != '.')) ++n.ellipses;
    const bool at_end = at + 1 == text.size() || ascii_blank(text[at + 1]) || text[at + 1] == '"' ||
                        text[at + 1] == '\'' || text[at + 1] == ')';
    if (at_end && open_before(at)) ++n.sentences, open = false;
  }
  n.sentences += open_before(text.size());
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

  double lines = 0, bullets = 0, ellipses = 0, punctuated = 0, shorts = 0, longs = 0;
  double repeated_lines = 0, repeated_line_characters = 0;
  scratch.counts.start(bytes.newlines + 1);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = ascii_trimmed(text.substr(at, end - at));
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
  }
  scratch.lowered.resize(text.size());
  std::transform(text.begin(), text.end(), scratch.lowered.begin(), ascii_lower);
  const std::string_view lowered = scratch.lowered;
  scratch.lines.clear();
  const uint64_t javascript = lines_with(lowered, "javascript", {"javascript"}, scratch.lines);
  scratch.lines.clear();
  lines_with(lowered, "cookie", {"cookie policy", "uses cookies", "use cookies", "use of cookies"},
             scratch.lines);
  lines_with(lowered, "terms of use", {"terms of use"}, scratch.lines);
  lines_with(lowered, "privacy policy", {"privacy policy"}, scratch.lines);
  std::sort(scratch.lines.begin(), scratch.lines.end());
  const auto policy = std::unique(scratch.lines.begin(), scratch.lines.end()) - scratch.lines.begin();
  set(kLines, lines);
  set(kBulletLines, share(bullets, lines));
  set(kEllipsisLines, share(ellipses, lines));
  set(kPunctuatedLines, share(punctuated, lines));
  set(kShortLines, share(shorts, lines));
  set(kLongLines, longs);
  set(kJavascriptLines, share(static_cast<double>(javascript), lines));
  set(kPolicyLines, share(static_cast<double>(policy), lines));
  set(kDuplicateLines, share(repeated_lines, lines));
  set(kDuplicateLineCharacters, share(repeated_line_characters, length));
  double lorem = 0;
  for (size_t at = 0; (at = text.find("orem ipsum", at)) != std::string_view::npos; ++at) ++lorem;
  set(kLoremIpsum, lorem);

  double paragraphs = 0, repeated_paragraphs = 0, repeated_paragraph_characters = 0;
  scratch.counts.start(bytes.newlines + 1);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find("\n\n", at), text.size());
    const std::string_view paragraph = ascii_trimmed(text.substr(at, end - at));
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
  start_grams(scratch);
  for (size_t n = 2; n <= 10 && !scratch.grams.empty(); ++n) {
    extend_grams(scratch, n);
    if (n <= 4) out[kTop2Gram + n - 2] = static_cast<float>(share(top_gram(scratch, n), length));
    else out[kDuplicate5Gram + n - 5] = static_cast<float>(share(duplicate_grams(scratch, n), length));
  }
  return out;
}

}  // namespace stoker::corpus
