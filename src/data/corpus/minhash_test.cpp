#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/cpu_features.h"
#include "base/error.h"
#include "base/random.h"
#include "data/corpus/minhash_kernel.h"
#include "data/corpus/minhash_signature.h"

namespace stoker::corpus {
namespace {

std::vector<uint64_t> numbers(uint64_t stream, size_t count, uint64_t mask = ~0ull) {
  std::vector<uint64_t> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = random_u64({7, stream}, i) & mask;
  return out;
}

TEST(MinHashKernel, EveryInstructionSetGivesTheSameBits) {
  for (const size_t count : {8u, 16u, 56u, 112u, 120u, 264u})
    for (const size_t shingles : {0u, 1u, 5u, 1000u}) {
      const auto a = numbers(1, count, 0xFFFFFFFF), b = numbers(2, count, 0xFFFFFFFF), c = numbers(3, count);
      auto x = numbers(4, shingles);
      if (shingles > 3) x[0] = 0, x[1] = ~0ull, x[2] = 1ull << 63;
      const MinHashRows rows{a.data(), b.data(), c.data(), count};
      std::vector<uint64_t> truth(count, ~0ull), other;
      minhash_update_reference(x, rows, truth.data());
      if (cpu_has(Isa::kAvx2)) {
        other.assign(count, ~0ull);
        minhash_update_avx2(x, rows, other.data());
        EXPECT_EQ(truth, other) << "avx2 " << count << " " << shingles;
      }
      if (cpu_has(Isa::kAvx512)) {
        other.assign(count, ~0ull);
        minhash_update_avx512(x, rows, other.data());
        EXPECT_EQ(truth, other) << "avx512 " << count << " " << shingles;
      }
    }
}

TEST(MinHashShingles, FoldingRules) {
  EXPECT_EQ(fold_words("Hello,  WORLD! it's 2026-11"), "hello world it s 0 0");
  EXPECT_EQ(fold_words("\xC3\x89t\xC3\xA9 e\xCC\x81t\xC3\xA9"), "ete ete");  // composed = decomposed
  EXPECT_EQ(fold_words("\xE6\xBC\xA2\xE5\xAD\x97 ok"),
            "\xE6\xBC\xA2 \xE5\xAD\x97 ok");  // a Han character is a word
  EXPECT_EQ(fold_words("a\xE2\x80\x94"
                       "b \xC2\xA0 c"),
            "a b c");  // dash and no-break space
  EXPECT_EQ(fold_words("bad\xFF"
                       "byte \xED\xA0\x80x"),
            "bad byte x");                                 // invalid UTF-8 separates
  EXPECT_EQ(fold_words("\xD9\xA3\xD9\xA4 x7y"), "0 x0y");  // Arabic digits
  EXPECT_EQ(fold_words("..."), "");
}

TEST(MinHashShingles, CountsAndShortTexts) {
  EXPECT_EQ(shingle_set("a b c d e f", ShingleUnit::kWord, 5).size(), 2u);
  EXPECT_EQ(shingle_set("a b", ShingleUnit::kWord, 5).size(), 1u);
  EXPECT_EQ(shingle_set(" ,;", ShingleUnit::kWord, 5).size(), 0u);
  EXPECT_EQ(shingle_set("a b a b a b a b", ShingleUnit::kWord, 2).size(), 2u);
  EXPECT_EQ(shingle_set("abcdef", ShingleUnit::kCharacter, 3).size(), 4u);
  EXPECT_EQ(shingle_set("abcd  !ef", ShingleUnit::kCharacter, 3).size(), 5u);  // folded to "abcd ef"
  EXPECT_NE(shingle_set("a b c", ShingleUnit::kWord, 3), shingle_set("c b a", ShingleUnit::kWord, 3));
  EXPECT_NE(shingle_set("ab c", ShingleUnit::kWord, 2), shingle_set("a bc", ShingleUnit::kWord, 2));
}

TEST(MinHashShingles, BlocksAgreeWithAPlainWindow) {
  // The rolling sum must equal a fresh computation for every window: an n-gram hash depends on its words
  // alone.
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += "w" + std::string(1, static_cast<char>('a' + i * 7 % 26)) + "x" + std::string(i % 11, 'q') + " ";
  const auto whole = shingle_set(text, ShingleUnit::kWord, 5);
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find(' ', at);
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  std::vector<uint64_t> parts;
  for (size_t i = 0; i + 5 <= words.size(); ++i) {
    std::string window;
    for (size_t j = i; j < i + 5; ++j) window += words[j] + " ";
    const auto one = shingle_set(window, ShingleUnit::kWord, 5);
    ASSERT_EQ(one.size(), 1u);
    parts.push_back(one[0]);
  }
  std::sort(parts.begin(), parts.end());
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  EXPECT_EQ(whole, parts);
}

std::string words_text(uint64_t stream, int from, int to) {
  std::string text;
  for (int i = from; i < to; ++i) {
    uint64_t r = random_u64({stream, 99}, static_cast<uint64_t>(i));
    for (int k = 0; k < 6; ++k, r /= 26) text += static_cast<char>('a' + r % 26);
    text += ' ';
  }
  return text;
}

TEST(MinHashSignature, EstimateIsUnbiasedWithBinomialVariance) {
  // 60 independent pairs per similarity, 112 entries: the mean estimate has standard error
  // sqrt(s(1-s)/(60*112)); five of them is a one-in-a-million bound.
  SignatureMaker maker(minhash_preset("fineweb"));
  for (const int shared : {100, 400, 700, 900}) {
    double sum = 0, truth = 0, square = 0;
    constexpr int kPairs = 60;
    for (int pair = 0; pair < kPairs; ++pair) {
      const uint64_t stream = 1000u * shared + pair;
      const std::string common = words_text(stream, 0, shared);
      const std::string a = common + words_text(stream, 10000, 10000 + (1000 - shared));
      const std::string b = common + words_text(stream, 20000, 20000 + (1000 - shared));
      const double exact =
          jaccard(shingle_set(a, ShingleUnit::kWord, 5), shingle_set(b, ShingleUnit::kWord, 5));
      const double estimate = estimated_similarity(*maker.sign(a), *maker.sign(b));
      truth += exact;
      sum += estimate;
      square += (estimate - exact) * (estimate - exact);
    }
    const double s = truth / kPairs, variance = s * (1 - s) / 112;
    EXPECT_NEAR(sum / kPairs, s, 5 * std::sqrt(variance / kPairs)) << shared;
    // A mean of 60 squared deviations has relative spread sqrt(2/60) = 0.18 around the variance.
    EXPECT_NEAR(square / kPairs / variance, 1, 5 * std::sqrt(2.0 / kPairs)) << shared;
  }
}

TEST(MinHashSignature, PresetsMatchTheirPublishedShape) {
  const auto fineweb = minhash_preset("fineweb");
  EXPECT_EQ(fineweb.entries(), 112);
  EXPECT_NEAR(fineweb.collision_probability(0.75), 0.77, 0.005);
  EXPECT_NEAR(fineweb.collision_probability(0.85), 0.99, 0.005);
  EXPECT_EQ(minhash_preset("olmo3").entries(), 286);
  EXPECT_EQ(minhash_preset("refinedweb").entries(), 9000);
  EXPECT_EQ(minhash_preset("nemo").unit, ShingleUnit::kCharacter);
  const auto text_dedup = minhash_preset("text-dedup");
  EXPECT_LE(text_dedup.entries(), 240);
  const double half = std::pow(1.0 / text_dedup.bands, 1.0 / text_dedup.rows);
  EXPECT_NEAR(half, 0.7, 0.05);
  EXPECT_THROW(minhash_preset("nosuch"), Error);
  MinHashParameters bad;
  bad.rows = 0;
  EXPECT_THROW(SignatureMaker{bad}, Error);
}

TEST(MinHashSignature, LongTextsStillDiffer) {
  // With a million shingles a minimum starts with about twenty zero bits; entries must not collide because of
  // it.
  SignatureMaker maker(minhash_preset("duplodocus"));
  const auto a = maker.sign(words_text(1, 0, 200000)), b = maker.sign(words_text(2, 0, 200000));
  EXPECT_EQ(estimated_similarity(*a, *b), 0);
  EXPECT_FALSE(maker.sign(" \n").has_value());
}

}  // namespace
}  // namespace stoker::corpus
