// data/corpus/quality_rules.h
// Published filters as bounds on signals. A rule keeps a document when low <= signal <= high.
//   gopher_quality     Rae et al. 2021: words 50..100,000, mean length 3..10, symbols, bullets, ellipses,
//   letters, 2 stop
//                      words
//   gopher_repetition  same paper, table A1
//   c4                 Raffel et al. 2020, page rules: no "lorem ipsum", no '{', at least 5 sentences (line
//   rules: c4_lines) fineweb            Penedo et al. 2024: 12 % of lines end in punctuation, 67 % short
//   lines, repeated lines, newlines
// fineweb's duplicated-line bound is 0.01 as in the released code (the paper says 0.1).
#pragma once
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus/quality_signals.h"

namespace stoker::corpus {

struct QualityRule {
  int signal = -1;
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
  std::string reason() const;  // "gopher_quality" is added by the caller: "mean_word_length outside 3..10"
  bool keeps(const Signals& s) const {
    return s[static_cast<size_t>(signal)] >= low && s[static_cast<size_t>(signal)] <= high;
  }
};

// Usage error with the known names for an unknown set.
std::vector<QualityRule> quality_rule_set(std::string_view name);
std::vector<std::string> quality_rule_set_names();

// The first rule that does not keep it, or -1.
int first_broken_rule(std::span<const QualityRule> rules, const Signals& signals);

// C4's edits of single lines: citation marks are cut; lines with fewer than 3 words, that mention javascript,
// or that hold cookie and terms phrases go; with terminal_punctuation also lines that do not end in . ? ! " '
// (FineWeb leaves that rule out).
std::string c4_lines(std::string_view text, bool terminal_punctuation);

}  // namespace stoker::corpus
