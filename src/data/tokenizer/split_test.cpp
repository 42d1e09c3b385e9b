// Every fast path against piece_end(), on texts made to hit the places where windows end.
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "data/tokenizer/split_batch.h"

namespace stoker::tokenizer {
namespace {

std::vector<size_t> one_by_one(SplitPattern pattern, std::string_view text) {
  std::vector<size_t> ends;
  for (size_t at = 0; at < text.size();) ends.push_back(at = piece_end(pattern, text, at));
  return ends;
}

std::vector<size_t> in_batches(SplitPattern pattern, Isa isa, std::string_view text, size_t batch) {
  const PieceFinder find(pattern, isa);
  std::vector<size_t> ends, part(batch);
  for (size_t at = 0; at < text.size();) {
    const size_t n = find(text, at, part.data(), batch);
    EXPECT_GT(n, 0u);
    EXPECT_LE(n, batch);
    if (!n) break;
    ends.insert(ends.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(n));
    at = ends.back();
  }
  return ends;
}

std::string random_text(std::mt19937& random, size_t size, int kind) {
  static const std::vector<std::string> kParts = {
      "a",     "b",    "the",    "Word",   "ABC",    "aB",      "Z",       " ",
      " ",     " ",    "  ",     "\n",     "\n",     "\r\n",    "\t",      "\n\n   ",
      " \n",   "1",    "22",     "333",    "4444",   "'",       "'s",      "'T",
      "'re",   "'LL",  "'ve",    "'m",     "'d",     "'x",      "''",      " '",
      "don't", "!",    "?!",     "(",      " (",     "/",       "!\n/",    "//",
      "_",     "-",    "...",    "\x0b",   "\x0c",   "\x1c",    "\x7f",    std::string(1, '\0'),
      "é",     "中文", "\u00a0", "\u3000", "\u017f", "'\u017f", "e\u0301", "🙂",
      "\xff",  "\xc3", "ж"};
  std::string out;
  const size_t ascii_only = kParts.size() - 11;
  while (out.size() < size) {
    const auto& part = kParts[random() % (kind == 0 ? ascii_only : kParts.size())];
    const size_t times = random() % 40 == 0 ? random() % 90 : 1;
    for (size_t i = 0; i < times; ++i) out += part;
    if (kind == 2 && random() % 3) out += static_cast<char>(random());
  }
  return out;
}

class Split : public testing::TestWithParam<SplitPattern> {};

TEST_P(Split, FastPathsFindTheSamePieces) {
  std::mt19937 random(5);
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (!cpu_has(isa)) continue;
    for (int round = 0; round < 600; ++round) {
      const std::string text = random_text(random, random() % 400, round % 3);
      ASSERT_EQ(in_batches(GetParam(), isa, text, 1 + random() % 300), one_by_one(GetParam(), text))
          << "isa " << static_cast<int>(isa) << " text " << testing::PrintToString(text);
    }
  }
}

// Cutting where is_safe_cut says changes no piece.
TEST_P(Split, SafeCutsAreSafe) {
  std::mt19937 random(6);
  for (int round = 0; round < 400; ++round) {
    const std::string text = random_text(random, 150, round % 3);
    const std::vector<size_t> whole = one_by_one(GetParam(), text);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if (!is_safe_cut(text[cut - 1], text[cut])) continue;
      std::vector<size_t> parts = one_by_one(GetParam(), std::string_view(text).substr(0, cut));
      for (size_t end : one_by_one(GetParam(), std::string_view(text).substr(cut)))
        parts.push_back(cut + end);
      ASSERT_EQ(parts, whole) << "cut at " << cut << " of " << testing::PrintToString(text);
    }
  }
}

TEST_P(Split, LongRunsTakeLinearTime) {
  // A quadratic splitter would need hours for these.
  for (const char* unit : {"a", "A", " ", "\n", "1", "!", "中", "\u0301", "\n ", "中A", "'", "🙂"}) {
    std::string text;
    while (text.size() < 2000000) text += unit;
    size_t pieces = 0;
    for_each_piece(PieceFinder(GetParam()), text, [&](std::string_view) { ++pieces; });
    EXPECT_GE(pieces, 1u);
  }
}

INSTANTIATE_TEST_SUITE_P(Patterns, Split, testing::ValuesIn(kSplitPatterns), [](const auto& name) {
  std::string s(split_name(name.param));
  if (s.find('.') != s.npos) s.replace(s.find('.'), 1, "_");
  return s;
});

TEST(SplitNames, UnknownOnesAreRefusedWithTheList) {
  try {
    split_from_regex(R"(\w+)");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    const std::string what = e.what();
    EXPECT_NE(what.find(R"(\w+)"), what.npos);
    EXPECT_NE(what.find("gpt2, llama3, qwen2, qwen3.5, cl100k, o200k"), what.npos);
  }
  for (SplitPattern p : kSplitPatterns) {
    EXPECT_EQ(split_from_name(split_name(p)), p);
    EXPECT_EQ(split_from_regex(split_regex(p)), p);
  }
}

}  // namespace
}  // namespace stoker::tokenizer
