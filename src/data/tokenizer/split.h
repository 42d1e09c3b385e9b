// data/tokenizer/split.h
// Pre-tokenisation: the regular expressions of byte-level BPE tokenizers, as code. Text is cut into pieces; they cover it.
// Patterns   recognised by their exact regex text; docs/formats/tokenizer.md lists the texts
// Numbers    the same pieces as Hugging Face tokenizers 0.23 (Oniguruma) and tiktoken 0.14 give, Unicode 16.0
// Bad UTF-8  a byte that belongs to no valid sequence is a symbol character of its own
// Cost       linear in the text for every input
// Errors     Usage: a pattern that is not known
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::tokenizer {

enum class SplitPattern : uint8_t { kGpt2, kLlama3, kQwen2, kQwen35, kCl100k, kO200k };
inline constexpr SplitPattern kSplitPatterns[] = {SplitPattern::kGpt2,   SplitPattern::kLlama3,
                                                  SplitPattern::kQwen2,  SplitPattern::kQwen35,
                                                  SplitPattern::kCl100k, SplitPattern::kO200k};

std::string_view split_name(SplitPattern pattern);   // "gpt2", "llama3", ...
std::string_view split_regex(SplitPattern pattern);  // what a tokenizer.json holds for it
SplitPattern split_from_name(std::string_view name);
SplitPattern split_from_regex(std::string_view regex);
std::string split_names();  // "gpt2, llama3, ...", for messages and help

// End of the piece that starts at `begin` < text.size(). One piece at a time; the reference for the fast
// paths.
size_t piece_end(SplitPattern pattern, std::string_view text, size_t begin);

// True where every pattern starts a new piece whatever surrounds it, so that text may be cut there and the
// parts encoded on their own: between an ASCII letter or digit and an ASCII space, tab or line end.
inline bool is_safe_cut(char before, char after) {
  const auto lower = static_cast<unsigned char>(before | 0x20);
  const bool word = (lower >= 'a' && lower <= 'z') || (before >= '0' && before <= '9');
  return word && (after == ' ' || after == '\n' || after == '\t' || after == '\r');
}
// The last safe cut in (0, limit], or 0 when there is none.
size_t last_safe_cut(std::string_view text, size_t limit);
// The first safe cut at or after `from`, or text.size().
size_t first_safe_cut(std::string_view text, size_t from);

}  // namespace stoker::tokenizer
