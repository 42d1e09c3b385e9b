// data/corpus/ascii.h
// Single bytes and words of ASCII, whatever the locale; bytes of other characters are neither letters nor blanks.
#pragma once
#include <algorithm>
#include <string_view>

namespace stoker::corpus {

constexpr char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
constexpr bool ascii_letter(char c) { return ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z'; }
constexpr bool ascii_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Without the blanks at both ends.
constexpr std::string_view ascii_trimmed(std::string_view s) {
  while (!s.empty() && ascii_blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && ascii_blank(s.back())) s.remove_suffix(1);
  return s;
}

// `word` is in lower case.
constexpr bool equals_lower(std::string_view text, std::string_view word) {
  return std::equal(text.begin(), text.end(), word.begin(), word.end(),
                    [](char a, char b) { return ascii_lower(a) == b; });
}

}  // namespace stoker::corpus
