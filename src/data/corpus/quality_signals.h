// data/corpus/quality_signals.h
// Everything the published quality rules look at, as numbers about one text, so that a threshold can be moved
// later without reading the text again. Rules are in quality_rules.h. Words       runs between Unicode
// blanks; a "real" word holds a letter or digit. Lengths are in code points Lines       split at LF, empty
// ones ignored; paragraphs split at empty lines Shares      0..1 of the quantity named; an empty text gives
// zeros Repetition  as Rae et al. 2021 (Gopher), table A1: top n-gram = most frequent n-gram's characters
// over all
//             characters; duplicate n-grams counted once they have been seen, without overlap
// Cost        one pass for counts and one hashed pass per n-gram size (docs/data-factory.md has rates)
#pragma once
#include <array>
#include <cstddef>
#include <string_view>

namespace stoker::corpus {

// Order is the order of stored columns: append only.
enum Signal : int {
  kBytes,
  kCharacters,
  kWords,            // real words
  kMeanWordLength,   // of real words
  kHashPerWord,      // '#' over all words
  kEllipsisPerWord,  // "..." and U+2026 over all words
  kBulletLines,      // share of lines that start with a bullet
  kEllipsisLines,    // share of lines that end with an ellipsis
  kAlphaWords,       // share of words with a letter
  kStopWords,        // how many different ones of: the be to of and that have with
  kStopWordCount,    // how often they occur
  kDuplicateLines,   // share of lines seen before in the text
  kDuplicateParagraphs,
  kDuplicateLineCharacters,
  kDuplicateParagraphCharacters,
  kTop2Gram,
  kTop3Gram,
  kTop4Gram,
  kDuplicate5Gram,
  kDuplicate6Gram,
  kDuplicate7Gram,
  kDuplicate8Gram,
  kDuplicate9Gram,
  kDuplicate10Gram,
  kLines,
  kPunctuatedLines,  // share of lines that end with . ? ! " ' or their wide and CJK forms
  kShortLines,       // share of lines of at most 30 characters
  kNewlinesPerWord,
  kSentences,        // runs ended by . ? ! (or CJK forms) before a blank or the end
  kCurlyBraces,      // count of '{'
  kLoremIpsum,       // occurrences
  kJavascriptLines,  // share of lines that mention javascript
  kPolicyLines,      // share of lines with cookie or terms-of-use phrases
  kLongestWord,
  kLongLines,    // lines of at least 200 characters
  kNonAscii,     // share of characters
  kUpperCase,    // share of letters A-Z among a-z and A-Z
  kDigits,       // share of characters
  kReplacement,  // U+FFFD per character
  kSignalCount
};

using Signals = std::array<float, kSignalCount>;

std::string_view signal_name(int signal);   // "mean_word_length"
int signal_by_name(std::string_view name);  // -1 when there is none

Signals measure_quality(std::string_view text);

}  // namespace stoker::corpus
