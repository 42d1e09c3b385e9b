#include "data/loader/lineage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "data/loader/made_dataset.h"
#include "data/shard/dataset_diff.h"

namespace stoker::data {
namespace {

TEST(Lineage, EveryTokenKnowsItsDocumentAndEveryDocumentItsTokens) {
  const auto made = make(40, true, false);
  const auto dataset = Dataset::open(made->fs, "d");
  const auto& split = dataset.split("train");
  for (uint64_t t = 0; t < split.tokens; ++t) {
    const auto parts = documents_at(dataset, made->fs, split, t, 1);
    ASSERT_EQ(parts.size(), 1u);
    const auto after = std::upper_bound(made->starts.begin(), made->starts.end(), t);
    ASSERT_EQ(parts[0].document, static_cast<uint64_t>(after - made->starts.begin()) - 1);
    ASSERT_EQ(parts[0].place.first_token + parts[0].first, t);
  }
  // A range over several documents and shards covers each of its tokens once.
  const auto parts = documents_at(dataset, made->fs, split, 3, split.tokens - 5);
  uint64_t at = 3;
  for (const auto& p : parts) {
    EXPECT_EQ(p.place.first_token + p.first, at);
    at += p.count;
  }
  EXPECT_EQ(at, split.tokens - 2);
  EXPECT_THROW(documents_at(dataset, made->fs, split, split.tokens, 1), Error);
  EXPECT_EQ(documents_by_hash(dataset, made->fs, split, hash128("t").hex().substr(0, 16)).size(), 40u);
  EXPECT_TRUE(documents_by_hash(dataset, made->fs, split, "ffffffffffffffff0").empty());
}

TEST(Lineage, ForwardAndBackAgree) {
  for (const bool bos : {false, true}) {
    const auto made = make(40, true, bos);
    const Loader loader(made->fs, "d", {"train", 16, 9, PackingMode::kDocumentMasks, false, "", 0, "", 0});
    const uint64_t s = loader.samples_per_epoch();
    std::map<uint64_t, uint64_t> shown_by;  // stream position -> sample, of epoch 2
    for (uint64_t n = 2 * s; n < 3 * s; ++n) {
      const auto range = loader.predicted_by(loader.window_of(n)).at(0);
      Batch b;
      loader.fill(n, 1, b);
      for (uint64_t i = 0; i < range.count; ++i) {
        EXPECT_TRUE(shown_by.emplace(range.first + i, n).second);
        if (b.targets[i] >= 0) {
          EXPECT_EQ(b.targets[i], made->stream[range.first + i]);
        }
      }
    }
    for (uint64_t t = 0; t < loader.tokens(); ++t) {
      const auto samples = samples_that_predict(loader, 2, t, 1);
      const auto it = shown_by.find(t);
      ASSERT_EQ(samples, it == shown_by.end() ? std::vector<uint64_t>{} : std::vector<uint64_t>{it->second})
          << "token " << t;
    }
    EXPECT_EQ(samples_that_predict(loader, 0, 0, loader.tokens()).size(), s);
  }
}

TEST(Lineage, ForwardAndBackAgreeInPackedRows) {
  for (const bool bos : {false, true}) {
    const auto made = make(40, true, bos);
    build_pack_plan(made->fs, Dataset::open(made->fs, "d"), "train", "p", 16);
    LoaderOptions options{"train", 16, 9, PackingMode::kDocumentMasks, false, "", 0, "", 0};
    options.plan = "p";
    const Loader loader(made->fs, "d", options);
    const uint64_t s = loader.samples_per_epoch();
    std::map<uint64_t, uint64_t> shown_by;
    for (uint64_t n = s; n < 2 * s; ++n)
      for (const auto& range : loader.predicted_by(loader.window_of(n)))
        for (uint64_t i = 0; i < range.count; ++i) EXPECT_TRUE(shown_by.emplace(range.first + i, n).second);
    for (uint64_t t = 0; t < loader.tokens(); ++t) {
      const auto it = shown_by.find(t);
      EXPECT_EQ(samples_that_predict(loader, 1, t, 1),
                it == shown_by.end() ? std::vector<uint64_t>{} : std::vector<uint64_t>{it->second})
          << "token " << t;
    }
  }
}

TEST(Lineage, SourcesAreFoundByLine) {
  const auto made = make(3, true, false);
  const std::string lines =
      "{\"input\":0,\"name\":\"a "
      "\\\"b\\\".txt\",\"format\":\"text\"}\n{\"input\":12,\"name\":\"new\\nline.jsonl\"}\nno JSON\n";
  put(made->fs, "d/sources.jsonl", lines);
  const auto dataset = Dataset::open(made->fs, "d");
  EXPECT_EQ(source_of(dataset, made->fs, {}).name, "a \"b\".txt");
  DocumentOrigin second;
  second.source = 1;
  EXPECT_EQ(source_of(dataset, made->fs, second).name, "new\nline.jsonl");
  EXPECT_EQ(source_of(dataset, made->fs, second).input, 12u);
  for (second.source = 2; second.source < 4; ++second.source)
    EXPECT_THROW(source_of(dataset, made->fs, second), Error) << second.source;
}

TEST(Diff, CountsDocumentsByText) {
  const auto a = make(20, true, false), b = make(25, true, false);
  const auto before = Dataset::open(a->fs, "d");
  EXPECT_TRUE(diff_datasets(before, before, a->fs).same);
  // Both live in one file system for the comparison.
  for (const auto& name : b->fs.list("d")) {
    a->fs.make_dirs("e");
    put(a->fs, "e/" + name, io::read_text(b->fs, "d/" + name));
  }
  const auto diff = diff_datasets(before, Dataset::open(a->fs, "e"), a->fs);
  EXPECT_FALSE(diff.same);
  EXPECT_EQ(diff.splits.at("train").kept, 20u);
  EXPECT_EQ(diff.splits.at("train").added, 5u);
  EXPECT_EQ(diff.splits.at("train").added_bytes, 25u);
  EXPECT_EQ(diff.splits.at("train").removed, 0u);
}

}  // namespace
}  // namespace stoker::data
