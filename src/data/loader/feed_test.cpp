// Several datasets as one feed: mixed, packed, filtered and scheduled at once, read by worker teams that come and go.
#include "data/loader/feed.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "data/loader/made_dataset.h"
#include "data/loader/prefetcher.h"

namespace stoker::data {
namespace {

constexpr int64_t kLength = 16;

// Three datasets of the made kind in one memory: "web" and "code" as windows, "book" in filtered, packed rows.
struct World {
  World() : made(make(60, true, false)) {
    const auto copy = [&](const std::string& to, int documents) {
      const auto other = make(documents, true, false);
      made->fs.make_dirs(to);
      for (const auto& name : other->fs.list("d"))
        put(made->fs, to + "/" + name, io::read_text(other->fs, "d/" + name));
    };
    copy("web", 90);
    copy("code", 30);
    copy("book", 50);
    PackOptions keep;
    keep.window_tokens = 200;
    keep.keep = [](const DocumentOrigin&, uint64_t tokens) { return tokens > 5; };
    keep.filter = R"({"min_tokens":6})";
    build_pack_plan(made->fs, Dataset::open(made->fs, "book"), "train", "long", kLength, keep);
  }
  FeedOptions options() const {
    FeedOptions o;
    o.sequence_length = kLength;
    o.seed = 11;
    const auto source = [&](const std::string& name, double weight) {
      FeedSource s;
      s.name = name;
      s.path = name;
      s.weight = weight;
      o.sources.push_back(s);
    };
    source("web", 0.5), source("code", 0.2), source("book", 0.3);
    o.sources[2].plan = "long";
    o.sources[1].max_epochs = 1.5;
    o.sources[1].drop_at_max = true;
    o.phases = {{100, {{"web", 1}, {"book", 3}}}, {230, {{"web", 1}, {"code", 1}, {"book", 1}}}};
    return o;
  }
  std::unique_ptr<Made> made;
};

TEST(Feed, TheOrderOfTheRecipeIsOfNoAccountAndNeitherIsTheScaleOfWeights) {
  World world;
  auto a = world.options(), b = a;
  std::swap(b.sources[0], b.sources[2]);
  for (auto& s : b.sources) *s.weight *= 10;
  const Feed one(world.made->fs, a), two(world.made->fs, b);
  EXPECT_EQ(one.description(), two.description());
  Batch x, y;
  one.fill(0, 300, x);
  two.fill(0, 300, y);
  EXPECT_EQ(x, y);
}

// Exactly-once, elastic, mixed, packed, filtered and re-weighted, all at once: teams of changing size read the run in pieces, are
// killed in mid-batch and begin again at the last batch that all had finished. Every sample arrives with the same bits, every source
// shows each of its rows once an epoch, and every token that its filter keeps is predicted once an epoch.
TEST(Feed, LawOfExactlyOnce) {
  World world;
  const auto o = world.options();
  const Feed truth(world.made->fs, o);
  constexpr uint64_t kBatch = 12, kBatches = 40;
  Batch all;
  truth.fill(0, kBatch * kBatches, all);

  std::vector<std::vector<int32_t>> rows(kBatch * kBatches);  // as the committed batches had them
  uint64_t committed = 0, killed = 0;
  for (uint64_t life = 0; committed < kBatches; ++life) {
    const uint64_t workers = 1 + random_u64({21, 0}, life) % 7, lives = 1 + random_u64({21, 1}, life) % 6;
    std::vector<std::unique_ptr<Feed>> feeds;  // each worker opens its own
    std::vector<std::unique_ptr<Prefetcher>> readers;
    const auto share = [&](uint64_t w) { return kBatch * w / workers; };
    for (uint64_t w = 0; w < workers; ++w) {
      feeds.push_back(std::make_unique<Feed>(world.made->fs, o));
      const uint64_t first = share(w), count = share(w + 1) - first;
      readers.push_back(std::make_unique<Prefetcher>(
          *feeds.back(),
          [=](uint64_t batch) {
            return SampleRange{batch * kBatch + first, static_cast<int64_t>(count)};
          },
          committed, 2));
    }
    Batch b;
    for (uint64_t n = 0; n < lives && committed < kBatches; ++n) {
      const bool dies = n + 1 == lives;
      std::vector<std::vector<int32_t>> got(kBatch);
      for (uint64_t w = 0; w < (dies ? (workers + 1) / 2 : workers); ++w) {
        readers[w]->next(b);
        for (uint64_t r = 0; r < share(w + 1) - share(w); ++r) {
          const auto at = static_cast<std::ptrdiff_t>(r * kLength);
          auto& row = got[share(w) + r];
          row.assign(b.tokens.begin() + at, b.tokens.begin() + at + kLength);
          row.insert(row.end(), b.targets.begin() + at, b.targets.begin() + at + kLength);
          row.insert(row.end(), b.document_start.begin() + at, b.document_start.begin() + at + kLength);
        }
      }
      if (dies) {
        ++killed;
        break;  // nothing of this batch was committed
      }
      for (uint64_t r = 0; r < kBatch; ++r) rows[committed * kBatch + r] = std::move(got[r]);
      ++committed;
    }
  }
  EXPECT_GT(killed, 5u);
  for (uint64_t n = 0; n < rows.size(); ++n) {
    const auto at = static_cast<std::ptrdiff_t>(n * kLength);
    std::vector<int32_t> expected(all.tokens.begin() + at, all.tokens.begin() + at + kLength);
    expected.insert(expected.end(), all.targets.begin() + at, all.targets.begin() + at + kLength);
    expected.insert(expected.end(), all.document_start.begin() + at,
                    all.document_start.begin() + at + kLength);
    ASSERT_EQ(rows[n], expected) << "sample " << n;
  }

  // The account: per source and epoch each row once, each token of it once.
  std::map<std::string, std::map<uint64_t, std::multiset<uint64_t>>> shown;  // source, epoch: rows
  std::map<std::string, std::map<uint64_t, std::map<uint64_t, int>>>
      predicted;  // source, epoch, token: times
  for (uint64_t n = 0; n < rows.size(); ++n) {
    const auto pick = truth.schedule().pick(n);
    const Loader& loader = truth.loader(pick.source);
    const uint64_t epoch = pick.number / loader.samples_per_epoch(), row = loader.window_of(pick.number);
    const std::string& name = truth.schedule().sources()[pick.source].name;
    shown[name][epoch].insert(row);
    for (const auto& range : loader.predicted_by(row))
      for (uint64_t t = 0; t < range.count; ++t) ++predicted[name][epoch][range.first + t];
  }
  uint64_t samples = 0;
  for (const auto& use : truth.used(0, rows.size())) {
    const Loader& loader = truth.loader(truth.find(use.name));
    for (const auto& [epoch, set] : shown[use.name]) {
      EXPECT_EQ(std::set<uint64_t>(set.begin(), set.end()).size(), set.size())
          << use.name << " epoch " << epoch;
      if (epoch + 1 < shown[use.name].size()) {
        EXPECT_EQ(set.size(), loader.samples_per_epoch());
      }
    }
    for (const auto& [epoch, tokens] : predicted[use.name])
      for (const auto& [token, times] : tokens) ASSERT_EQ(times, 1) << use.name << " token " << token;
    samples += use.samples;
    EXPECT_GT(use.epochs(), 1) << use.name;  // or the law says little
  }
  EXPECT_EQ(samples, rows.size());
  EXPECT_EQ(
      truth.used(0, rows.size())[truth.find("code")].samples,
      static_cast<uint64_t>(1.5 * static_cast<double>(truth.loader(truth.find("code")).samples_per_epoch())));
  // The filter: no document of at most 5 tokens was shown.
  const Loader& book = truth.loader(truth.find("book"));
  EXPECT_GT(book.plan()->documents_left_out, 0u);
  EXPECT_EQ(predicted["book"][0].size(), book.plan()->tokens);
}

TEST(Feed, OnlyTheFutureMayChange) {
  World world;
  const auto o = world.options();
  const Feed before(world.made->fs, o);
  const std::string saved = before.description();
  constexpr uint64_t kBatch = 10;
  const auto difference = [&](const FeedOptions& now, uint64_t samples) {
    const Feed feed(world.made->fs, now);
    const std::string words = feed.past_difference(saved, samples, kBatch);
    // The words are true: the picks agree exactly when nothing is said.
    bool same = true;
    for (uint64_t n = 0; n < samples && same; ++n) {
      const auto a = before.schedule().pick(n), b = feed.schedule().pick(n);
      const std::string name = before.schedule().sources()[a.source].name;
      same = name == feed.schedule().sources()[b.source].name && a.number == b.number &&
             before.loader(a.source).manifest_hash() == feed.loader(b.source).manifest_hash() &&
             !before.loader(a.source).plan() == !feed.loader(b.source).plan() &&
             before.loader(a.source).window_of(a.number) == feed.loader(b.source).window_of(b.number);
    }
    EXPECT_EQ(same, words.empty()) << words;
    return words;
  };
  EXPECT_EQ(difference(o, 400), "");
  auto later = o;
  later.phases[1].weights["web"] = 9;
  EXPECT_EQ(difference(later, 230), "");
  EXPECT_NE(difference(later, 240).find("from step 23 on (sample 230)"), std::string::npos);
  auto sooner = o;
  sooner.phases[0].first_sample = 90;
  EXPECT_EQ(difference(sooner, 90), "");
  EXPECT_NE(difference(sooner, 100).find("from step 9 on"), std::string::npos);
  auto another = o;  // a new source, from now on
  FeedSource extra;
  extra.name = "extra", extra.path = "d", extra.weight = 0;
  another.sources.push_back(extra);
  another.phases[1].weights["extra"] = 2;
  EXPECT_EQ(difference(another, 230), "");
  EXPECT_NE(difference(another, 231), "");
  auto gone = o;  // an old one is over, but it was shown
  gone.sources.erase(gone.sources.begin() + 1);
  gone.phases[1].weights.erase("code");
  EXPECT_NE(difference(gone, 100), "");
  auto swapped = o;
  swapped.sources[0].path = "d";
  EXPECT_NE(difference(swapped, 100).find("source web: its dataset was"), std::string::npos);
  auto unpacked = o;
  unpacked.sources[2].plan = "";
  EXPECT_NE(difference(unpacked, 50).find("its packing plan was"), std::string::npos);
  auto longer = o;  // the limit of a source that has not been reached yet
  longer.sources[1].max_epochs = 2.5;
  EXPECT_EQ(difference(longer, 230), "");
}

TEST(Feed, ASourceThatRunsOutEndsTheFeedInWords) {
  World world;
  auto o = world.options();
  o.phases.clear();
  o.sources[1].drop_at_max = false;
  const Feed feed(world.made->fs, o);
  ASSERT_LT(feed.end(), 1000u);
  Batch b;
  feed.fill(feed.end() - 3, 3, b);
  EXPECT_NE(feed.end_reason().find("source code has been shown 1.5 times"), std::string::npos);
  try {
    feed.fill(feed.end() - 3, 4, b);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("then = \"drop\""), std::string::npos) << e.what();
  }
}

TEST(Feed, NonsenseIsRefused) {
  World world;
  const auto bad = [&](const std::string& words, auto&& change) {
    auto o = world.options();
    change(o);
    try {
      Feed(world.made->fs, o);
      ADD_FAILURE() << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  bad("at least one data source", [](auto& o) { o.sources.clear(); });
  bad("two data sources are named \"web\"", [](auto& o) { o.sources[1].name = "web"; });
  bad("give one to all, or to none", [](auto& o) { o.sources[1].weight.reset(); });
  bad("weight is -1", [](auto& o) { o.sources[1].weight = -1; });
  bad("weight is 1e-09", [](auto& o) { o.sources[1].weight = 1e-9; });
  bad("no data source \"wob\": there is book, code, web", [](auto& o) { o.phases[0].weights["wob"] = 1; });
  bad("gives no source a weight", [](auto& o) { o.phases[0].weights = {{"web", 0}}; });
  bad("less than one sample", [](auto& o) { o.sources[0].max_epochs = 1e-6; });
  bad("different tokenizers", [&](auto& o) {
    auto m = Manifest::parse(io::read_text(world.made->fs, "code/manifest.json"), "m");
    m.tokenizer.file.hash.low ^= 1;
    world.made->fs.make_dirs("other");
    put(world.made->fs, "other/manifest.json", m.to_json());
    o.sources[1].path = "other";
  });
}

// One dataset under the name "data" is fed as the loader alone would.
TEST(Feed, OneDatasetIsTheLoader) {
  World world;
  FeedOptions o;
  o.sequence_length = kLength;
  o.seed = 3;
  o.sources.resize(1);
  o.sources[0].path = "web";
  const Feed feed(world.made->fs, o);
  const Loader loader(world.made->fs, "web",
                      {"train", kLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0});
  Batch a, b;
  feed.fill(17, 500, a);
  loader.fill(17, 500, b);
  EXPECT_EQ(a, b);
  EXPECT_EQ(feed.manifest_hash(), loader.manifest_hash());
  EXPECT_EQ(feed.targets_in(5, 8), 8u * kLength);
}

TEST(FeedDescription, ReadsBackAndRefusesDamage) {
  World world;
  const Feed feed(world.made->fs, world.options());
  const std::string text = feed.description();
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"stoker-feed", "other"},
                                                        {"\"first_sample\":0", "\"first_sample\":1"},
                                                        {"\"version\":1", "\"version\":2"},
                                                        {"\"book\":3", "\"book\":0"},
                                                        {"\"phases\"", "\"phase\""},
                                                        {"\"name\":\"web\"", "\"name\":\"code\""}}) {
    std::string damaged = text;
    const size_t at = damaged.find(from);
    ASSERT_NE(at, std::string::npos) << from << " in " << text;
    damaged.replace(at, from.size(), to);
    try {
      feed.past_difference(damaged, 1, 1);
      ADD_FAILURE() << damaged;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kData);
    }
  }
}

}  // namespace
}  // namespace stoker::data
