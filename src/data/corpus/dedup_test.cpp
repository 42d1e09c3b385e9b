#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>

#include "base/random.h"
#include "data/corpus/dedup_accuracy.h"
#include "data/corpus/dedup_documents.h"
#include "data/corpus/dedup_lines.h"

namespace stoker::corpus {
namespace {

std::string scratch(const char* name) {
  const auto path = std::filesystem::temp_directory_path() /
                    (std::string("stoker_dedup_") + name + std::to_string(::getpid()));
  std::filesystem::remove_all(path);
  return path.string();
}

// Families of texts: member m of family f shares all but 3*m of its 200 words with member 0.
std::vector<std::string> families(int count, int members) {
  std::vector<std::string> texts;
  for (int f = 0; f < count; ++f)
    for (int m = 0; m < members; ++m) {
      std::string text;
      for (int w = 0; w < 200; ++w) {
        const bool own = w >= 200 - 3 * m;
        text += "w" + std::string(1, 'x') + std::to_string(0);
        uint64_t r = random_u64({static_cast<uint64_t>(f), own ? 100u + m : 0u}, static_cast<uint64_t>(w));
        for (int k = 0; k < 5; ++k, r /= 26) text += static_cast<char>('a' + r % 26);
        text += ' ';
      }
      texts.push_back(text);
    }
  return texts;
}

struct Outcome {
  std::string kept, matched;
  float similarity;
  bool operator==(const Outcome&) const = default;
};

// Verdicts by text, so that runs in different orders can be compared.
std::map<std::string, Outcome> run(const std::vector<std::string>& texts, const std::vector<uint32_t>& order,
                                   SpillBudget spill, double min_similarity = 0) {
  NearDuplicateFinder finder({minhash_preset("fineweb"), min_similarity, spill});
  SignatureMaker maker(minhash_preset("fineweb"));
  for (const uint32_t i : order) {
    const auto signature = maker.sign(texts[i]);
    finder.add({static_cast<float>(i % 3), hash128(texts[i]), hash128(std::to_string(i))},
               signature ? std::span<const uint32_t>(*signature) : std::span<const uint32_t>());
  }
  const auto verdicts = finder.finish();
  std::map<std::string, Outcome> out;
  for (size_t k = 0; k < order.size(); ++k)
    out[texts[order[k]]] = {texts[order[verdicts[k].kept]], texts[order[verdicts[k].matched]],
                            verdicts[k].similarity};
  return out;
}

TEST(NearDuplicates, SameVerdictForAnyOrderAndAnyMemory) {
  auto texts = families(40, 6);
  texts.push_back("");
  std::vector<uint32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto truth = run(texts, order, {});
  std::set<std::string> kept;
  for (const auto& [text, outcome] : truth) kept.insert(outcome.kept);
  EXPECT_GE(kept.size(), 41u);  // at least one of each family and the empty one
  EXPECT_LE(kept.size(), 60u);  // most members share a band with another
  for (uint64_t shuffle = 1; shuffle <= 4; ++shuffle) {
    const KeyedPermutation permutation(shuffle, texts.size());
    std::vector<uint32_t> shuffled;
    for (size_t i = 0; i < texts.size(); ++i)
      shuffled.push_back(static_cast<uint32_t>(permutation.permute(i)));
    const std::string directory = scratch("near");
    EXPECT_EQ(run(texts, shuffled, {directory, 4096}), truth) << shuffle;
    EXPECT_TRUE(!std::filesystem::exists(directory) || std::filesystem::is_empty(directory));
    std::filesystem::remove_all(directory);
  }
}

// Documents by the ten thousand, a megabyte for each of four tables, and what stdio takes.
TEST(NearDuplicates, HoldNoMoreThanTheirBudget) {
  constexpr uint64_t kDocuments = 40000, kBudget = uint64_t{1} << 20;
  const std::string directory = scratch("budget");
  const auto held = [] {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = held();
  ExactDuplicateFinder exact({directory, kBudget});
  NearDuplicateFinder near({minhash_preset("fineweb"), 0, {directory, kBudget}});
  std::vector<uint32_t> signature(static_cast<size_t>(minhash_preset("fineweb").entries()));
  size_t most = 0;
  for (uint64_t i = 0; i < kDocuments; ++i) {
    for (size_t k = 0; k < signature.size(); ++k)
      signature[k] = static_cast<uint32_t>(random_u64({i / 4, 0}, i % 4 && k < 8 ? 1000 + i % 4 : k));
    const DocumentKey key{0, {i / 2, i}, {i, 0}};
    near.add(key, signature);
    exact.add(key);
    if (i % 500 == 0) most = std::max(most, held() - before);
  }
  EXPECT_LT(most, 4 * kBudget);
  const auto verdicts = near.finish();
  EXPECT_EQ(std::count_if(verdicts.begin(), verdicts.end(), [](const auto& v) { return v.similarity < 1; }),
            3 * kDocuments / 4);
  exact.finish();
  EXPECT_LT(held() - before, 4 * kBudget);
  std::filesystem::remove_all(directory);
}

TEST(NearDuplicates, KeptIsTheBestAndDroppedNameTheirMatch) {
  const auto texts = families(10, 4);
  std::vector<uint32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0u);
  for (const auto& [text, outcome] : run(texts, order, {})) {
    SignatureMaker maker(minhash_preset("fineweb"));
    EXPECT_FLOAT_EQ(outcome.similarity, static_cast<float>(estimated_similarity(
                                            *maker.sign(text), *maker.sign(outcome.matched))));
    EXPECT_EQ(outcome.kept == text, outcome.matched == text);
  }
  // With a floor above every pair's similarity nothing is joined.
  for (const auto& [text, outcome] : run(texts, order, {}, 1.01)) EXPECT_EQ(outcome.kept, text);
}

TEST(ExactDuplicates, QualityThenIdDecides) {
  const Hash128 same{1, 1}, other{2, 2};
  const std::vector<DocumentKey> documents = {
      {0, same, {0, 5}}, {1, same, {0, 9}}, {0, other, {0, 1}}, {1, same, {0, 3}}};
  ExactDuplicateFinder finder;
  for (const auto& document : documents) finder.add(document);
  const auto verdicts = finder.finish();
  EXPECT_EQ(verdicts[0].kept, 3u);
  EXPECT_EQ(verdicts[1].kept, 3u);
  EXPECT_EQ(verdicts[2].kept, 2u);
  EXPECT_EQ(verdicts[3].kept, 3u);
}

TEST(ExactDuplicates, SameVerdictForAnyMemory) {
  const std::string directory = scratch("exact");
  ExactDuplicateFinder little({directory, 4096}), much;
  for (uint64_t i = 0; i < 5000; ++i) {
    const uint64_t text = random_u64({6, 0}, i) % 3000;
    const DocumentKey key{static_cast<float>(i % 2), hash128(std::to_string(text)),
                          hash128(std::to_string(i))};
    little.add(key);
    much.add(key);
  }
  const auto expected = much.finish(), found = little.finish();
  ASSERT_EQ(found.size(), 5000u);
  EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin()));
  const auto dropped = [&](uint32_t i) { return expected[i].kept != i; };
  EXPECT_GT(
      std::count_if(expected.begin(), expected.end(),
                    [&](const auto& v) { return dropped(static_cast<uint32_t>(&v - expected.begin())); }),
      1500);
  EXPECT_TRUE(std::filesystem::is_empty(directory));
  std::filesystem::remove_all(directory);
}

std::map<std::string, std::string> dedup_lines(const std::vector<std::string>& texts,
                                               const std::vector<uint32_t>& order, LineDedupOptions options) {
  LineDeduplicator dedup(options);
  for (const uint32_t i : order) dedup.add({0, hash128(texts[i]), hash128(std::to_string(i))}, texts[i]);
  std::map<std::string, std::string> out;
  for (const auto& text : texts) out[text] = text;
  dedup.finish([&](uint32_t d, std::span<const uint32_t> drop) {
    out[texts[order[d]]] = remove_spans(texts[order[d]], options.kind, drop);
  });
  return out;
}

TEST(DuplicateLines, EachStaysOnceWhateverTheOrder) {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i)
    texts.push_back(
        "unique line number " + std::to_string(i) +
        " stays in place\n  the site's footer, on every page  \nshort\n" +
        (i % 2 ? "an odd remark that half of them share\n" : "tail without newline " + std::to_string(i)));
  std::vector<uint32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto truth = dedup_lines(texts, order, {});
  int footers = 0, odd = 0, shorts = 0;
  for (const auto& [before, after] : truth) {
    footers += after.find("footer") != std::string::npos;
    odd += after.find("odd remark") != std::string::npos;
    shorts += after.find("short\n") != std::string::npos;
    EXPECT_NE(after.find("unique line"), std::string::npos);
  }
  EXPECT_EQ(footers, 1);
  EXPECT_EQ(odd, 1);
  EXPECT_EQ(shorts, 200);
  std::reverse(order.begin(), order.end());
  LineDedupOptions spilling;
  spilling.spill = {scratch("lines"), 2048};
  EXPECT_EQ(dedup_lines(texts, order, spilling), truth);
  std::filesystem::remove_all(spilling.spill.directory);
}

TEST(DuplicateLines, ParagraphsAndReassembly) {
  const std::string text = "one\ntwo\n\nthree\n \n\nfour";
  const auto spans = split_spans(text, SpanKind::kParagraph);
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(text.substr(spans[0].begin, spans[0].end - spans[0].begin), "one\ntwo");
  EXPECT_EQ(remove_spans(text, SpanKind::kParagraph, {}), text);
  const std::vector<uint32_t> middle = {1};
  EXPECT_EQ(remove_spans(text, SpanKind::kParagraph, middle), "one\ntwo\n\n\nfour");
  const std::vector<uint32_t> last = {2};
  EXPECT_EQ(remove_spans(text, SpanKind::kParagraph, last), "one\ntwo\n\nthree\n \n\n");
  EXPECT_EQ(remove_spans("", SpanKind::kLine, {}), "");
}

TEST(DedupAccuracy, PrefixFilteringFindsWhatBruteForceFinds) {
  const auto texts = families(12, 8);
  std::vector<std::vector<uint64_t>> sets;
  for (const auto& text : texts) sets.push_back(shingle_set(text, ShingleUnit::kWord, 5));
  sets.push_back({});
  for (const double threshold : {0.5, 0.75, 0.9, 1.0}) {
    std::vector<std::pair<uint32_t, uint32_t>> truth, found;
    for (uint32_t a = 0; a < sets.size(); ++a)
      for (uint32_t b = a + 1; b < sets.size(); ++b)
        if (jaccard(sets[a], sets[b]) >= threshold) truth.emplace_back(a, b);
    for (const auto& pair : exact_similar_pairs(sets, threshold)) found.emplace_back(pair.a, pair.b);
    EXPECT_EQ(found, truth) << threshold;
  }
}

TEST(DedupAccuracy, RecallFollowsTheBandsFormula) {
  const auto texts = families(120, 8);
  std::vector<std::vector<uint64_t>> sets;
  std::vector<Signature> signatures;
  const auto p = minhash_preset("fineweb");
  SignatureMaker maker(p);
  for (const auto& text : texts) {
    sets.push_back(shingle_set(text, ShingleUnit::kWord, 5));
    signatures.push_back(*maker.sign(text));
  }
  const auto truth = exact_similar_pairs(sets, 0.5);
  const auto found = banded_pairs(signatures, p);
  for (const double threshold : {0.5, 0.7, 0.9}) {
    const auto accuracy = measure_pairs(truth, found, threshold, 0, p);
    ASSERT_GT(accuracy.true_pairs, 100u);
    // Pairs of one family are not independent (28 pairs share 8 signatures), so count families, not pairs:
    // standard error below 0.5/sqrt(120) = 0.046, four of them.
    EXPECT_NEAR(accuracy.recall(), accuracy.expected_recall, 0.18) << threshold;
  }
  EXPECT_EQ(measure_pairs(truth, truth, 0.7, 0.7, p).precision(), 1);
  EXPECT_EQ(measure_pairs(truth, truth, 0.7, 0.7, p).recall(), 1);
}

}  // namespace
}  // namespace stoker::corpus
