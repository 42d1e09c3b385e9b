#include "data/corpus/quality_rules.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace stoker::corpus {
namespace {

constexpr std::array<std::string_view, 6> kPolicyPhrases = {"terms of use", "privacy policy", "cookie policy",
                                                            "uses cookies", "use of cookies", "use cookies"};

constexpr float kNone = std::numeric_limits<float>::infinity();

std::string bound(float value) { return std::isinf(value) ? "" : fmt::format("{:g}", value); }

bool contains_lower(const std::string& lowered, std::string_view needle) {
  return lowered.find(needle) != std::string::npos;
}

// "[12]", "[edit]", "[citation needed]"
size_t citation_length(std::string_view s) {
  if (s.empty() || s[0] != '[') return 0;
  for (const std::string_view mark : {"[edit]", "[citation needed]"})
    if (s.starts_with(mark)) return mark.size();
  size_t at = 1;
  while (at < s.size() && at < 5 && s[at] >= '0' && s[at] <= '9') ++at;
  return at < s.size() && s[at] == ']' ? at + 1 : 0;
}

}  // namespace

std::string QualityRule::reason() const {
  if (std::isinf(high)) return fmt::format("{} below {}", signal_name(signal), bound(low));
  if (std::isinf(low)) return fmt::format("{} above {}", signal_name(signal), bound(high));
  return fmt::format("{} outside {}..{}", signal_name(signal), bound(low), bound(high));
}

std::vector<std::string> quality_rule_set_names() {
  return {"gopher_quality", "gopher_repetition", "c4", "fineweb"};
}

std::vector<QualityRule> quality_rule_set(std::string_view name) {
  if (name == "gopher_quality")
    return {{kWords, 50, 100000},         {kMeanWordLength, 3, 10},
            {kHashPerWord, -kNone, 0.1f}, {kEllipsisPerWord, -kNone, 0.1f},
            {kBulletLines, -kNone, 0.9f}, {kEllipsisLines, -kNone, 0.3f},
            {kAlphaWords, 0.8f, kNone},   {kStopWords, 2, kNone}};
  if (name == "gopher_repetition")
    return {{kDuplicateLines, -kNone, 0.30f},
            {kDuplicateParagraphs, -kNone, 0.30f},
            {kDuplicateLineCharacters, -kNone, 0.20f},
            {kDuplicateParagraphCharacters, -kNone, 0.20f},
            {kTop2Gram, -kNone, 0.20f},
            {kTop3Gram, -kNone, 0.18f},
            {kTop4Gram, -kNone, 0.16f},
            {kDuplicate5Gram, -kNone, 0.15f},
            {kDuplicate6Gram, -kNone, 0.14f},
            {kDuplicate7Gram, -kNone, 0.13f},
            {kDuplicate8Gram, -kNone, 0.12f},
            {kDuplicate9Gram, -kNone, 0.11f},
            {kDuplicate10Gram, -kNone, 0.10f}};
  if (name == "c4")
    return {{kLoremIpsum, -kNone, 0},
            {kCurlyBraces, -kNone, 0},
            {kSentences, 5, kNone},
            {kLongestWord, -kNone, 1000}};
  if (name == "fineweb")
    return {{kPunctuatedLines, 0.12f, kNone},
            {kShortLines, -kNone, 0.67f},
            {kDuplicateLineCharacters, -kNone, 0.01f},
            {kNewlinesPerWord, -kNone, 0.3f}};
  fail(ErrorKind::kUsage, "no quality rule set '{}': there are {}", name,
       fmt::join(quality_rule_set_names(), ", "));
}

int first_broken_rule(std::span<const QualityRule> rules, const Signals& signals) {
  for (size_t i = 0; i < rules.size(); ++i)
    if (!rules[i].keeps(signals)) return static_cast<int>(i);
  return -1;
}

std::string c4_lines(std::string_view text, bool terminal_punctuation) {
  std::string out, line, lowered;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view raw = text.substr(at, end - at);
    at = end + 1;
    line.clear();
    for (size_t i = 0; i < raw.size();) {
      if (const size_t cut = citation_length(raw.substr(i))) i += cut;
      else line += raw[i++];
    }
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.pop_back();
    if (line.empty()) {
      if (!out.empty() && !out.ends_with("\n\n")) out += '\n';
      continue;
    }
    int words = 0;
    bool inside = false;
    for (const char c : line) {
      const bool blank = c == ' ' || c == '\t';
      words += !blank && !inside;
      inside = !blank;
    }
    if (words < 3) continue;
    lowered.assign(line);
    std::transform(lowered.begin(), lowered.end(), lowered.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    if (contains_lower(lowered, "javascript")) continue;
    if (std::any_of(kPolicyPhrases.begin(), kPolicyPhrases.end(),
                    [&](std::string_view phrase) { return contains_lower(lowered, phrase); }))
      continue;
    const char last = line.back();
    if (terminal_punctuation && (last != '.' && last != '?' && last != '!' && last != '"' && last != '\''))
      continue;
    if (terminal_punctuation && line.ends_with("...")) continue;
    out += line;
    out += '\n';
  }
  while (!out.empty() && out.back() == '\n') out.pop_back();
  if (!out.empty() && text.ends_with('\n')) out += '\n';
  return out;
}

}  // namespace stoker::corpus
