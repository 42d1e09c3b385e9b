#include "data/tokenizer/split.h"

#include "base/error.h"
#include "data/tokenizer/split_scalar.h"

namespace stoker::tokenizer {
namespace {

struct KnownPattern {
  SplitPattern pattern;
  std::string_view name;
  std::string_view regex;
};

// The first text of a pattern is the one that save() writes. cl100k: tiktoken's own text means something else
// to Oniguruma (it reads {1,3}+ as a repeated group and $ as a line's end), so a tokenizer.json gets an
// equivalent.
constexpr KnownPattern kKnown[] = {
    {SplitPattern::kGpt2, "gpt2",
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kLlama3, "llama3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kQwen2, "qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kQwen35, "qwen3.5",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kCl100k, "cl100k",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitPattern::kO200k, "o200k",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

}  // namespace

std::string_view split_name(SplitPattern pattern) {
  for (const auto& k : kKnown)
    if (k.pattern == pattern) return k.name;
  return "unknown";
}

std::string_view split_regex(SplitPattern pattern) {
  for (const auto& k : kKnown)
    if (k.pattern == pattern) return k.regex;
  return "";
}

std::string split_names() {
  std::string out;
  for (const auto& k : kKnown) out += (out.empty() ? "" : ", ") + std::string(k.name);
  return out;
}

SplitPattern split_from_name(std::string_view name) {
  for (const auto& k : kKnown)
    if (k.name == name) return k.pattern;
  fail(ErrorKind::kUsage, "split pattern '{}' is not known: use one of {}", name, split_names());
}

SplitPattern split_from_regex(std::string_view regex) {
  for (const auto& k : kKnown)
    if (k.regex == regex) return k.pattern;
  fail(ErrorKind::kUsage,
       "the tokenizer splits text by a pattern that is not known here: {}\nKnown are those of {} "
       "(docs/formats/tokenizer.md has their texts); use a tokenizer with one of them",
       regex.substr(0, 500), split_names());
}

size_t piece_end(SplitPattern pattern, std::string_view text, size_t begin) {
  STOKER_CHECK(begin < text.size());
  return with_split(
      pattern, [&]<SplitPattern P>() { return Splitter<P>(text, UnicodeTable::get()).piece_end(begin); });
}

size_t last_safe_cut(std::string_view text, size_t limit) {
  for (size_t i = limit < text.size() ? limit : text.size() - (text.empty() ? 0 : 1); i > 0; --i)
    if (is_safe_cut(text[i - 1], text[i])) return i;
  return 0;
}

size_t first_safe_cut(std::string_view text, size_t from) {
  for (size_t i = from ? from : 1; i < text.size(); ++i)
    if (is_safe_cut(text[i - 1], text[i])) return i;
  return text.size();
}

}  // namespace stoker::tokenizer
