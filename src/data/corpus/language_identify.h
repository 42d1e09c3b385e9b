// data/corpus/language_identify.h
// Which language a text is in, by CLD2 (Debian libcld2: letter-quadgram naive Bayes, 83 languages, tables compiled in). fastText's
// lid.176 is as common, but its model is a file Debian does not ship; CLD2 needs none and is faster.
// Determinism   a pure function of the text: no state, any thread
// Input         what comes before the first byte that is not UTF-8; 2^30 bytes of it at most
#pragma once
#include <string>
#include <string_view>

namespace stoker::corpus {

struct Language {
  std::string code = "und";  // BCP 47, lower case ("en", "zh", "zh-hant"); "und" when undecided
  float share = 0;           // of the text in that language, 0..1
  bool reliable = false;
};

// Of a longer text, four parts of a quarter of this are looked at, spread evenly.
inline constexpr size_t kLanguageSample = size_t{32} << 10;

Language identify_language(std::string_view text);
bool is_language_code(std::string_view code);  // that identify_language may give

}  // namespace stoker::corpus
