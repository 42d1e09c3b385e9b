#include "data/loader/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/expect_error.h"
#include "data/loader/made_dataset.h"
#include "data/loader/prefetcher.h"

namespace stoker::data {
namespace {

LoaderOptions options(int64_t length, PackingMode mode = PackingMode::kDocumentMasks, bool sequential = false,
                      uint64_t seed = 3) {
  return {"train", length, seed, mode, sequential, "", 0, "", 0};
}

// The contract of loader.h, written the slow way: every cell from the whole stream.
struct Cell {
  int32_t token, target, position, start;
  auto operator<=>(const Cell&) const = default;
};
std::vector<Cell> expected_row(const Made& made, bool eod, bool bos, int64_t length, uint64_t window,
                               bool masked) {
  const bool separator = eod && !bos;
  const auto total = static_cast<int64_t>(made.stream.size());
  std::set<int64_t> begins,
      given;  // stream positions (-1: virtual) where attention starts; positions never predicted
  for (const uint64_t s : made.starts) {
    begins.insert(static_cast<int64_t>(s) - (separator ? 1 : 0));
    if (!separator) given.insert(static_cast<int64_t>(s));
  }
  std::vector<Cell> row;
  int32_t begin = 0;
  for (int64_t t = 0; t < length; ++t) {
    const int64_t shows = static_cast<int64_t>(window) * length + t - (separator ? 1 : 0);
    Cell c{separator ? kEod : 0, -1, 0, 0};
    const bool known = shows + 1 < total;
    if (known && shows >= 0) c.token = made.stream[static_cast<size_t>(shows)];
    if (known) c.target = made.stream[static_cast<size_t>(shows) + 1];
    if (masked && known && given.count(shows + 1)) c.target = -1;
    if (masked && (begins.count(shows) || !known)) begin = static_cast<int32_t>(t);
    c.start = begin;
    c.position = static_cast<int32_t>(t) - begin;
    row.push_back(c);
  }
  return row;
}

std::vector<Cell> row_of(const Batch& b, int64_t row) {
  std::vector<Cell> out;
  for (int64_t t = 0; t < b.length; ++t) {
    const auto i = static_cast<size_t>(row * b.length + t);
    out.push_back({b.tokens[i], b.targets[i], b.positions[i], b.document_start[i]});
  }
  return out;
}

TEST(Loader, EveryCellIsWhatTheContractSays) {
  for (const auto& [eod, bos] : {std::pair{true, false}, {true, true}, {false, true}, {false, false}}) {
    const auto made = make(40, eod, bos);
    for (const int64_t length : {1, 3, 16, 61, 200})
      for (const bool masked : {true, false})
        for (const bool sequential : {true, false}) {
          const Loader loader(
              made->fs, "d",
              options(length, masked ? PackingMode::kDocumentMasks : PackingMode::kConcatenated, sequential));
          Batch b;
          loader.fill(0, static_cast<int64_t>(loader.samples_per_epoch()), b);
          for (int64_t r = 0; r < b.rows; ++r)
            ASSERT_EQ(row_of(b, r), expected_row(*made, eod, bos, length,
                                                 loader.window_of(static_cast<uint64_t>(r)), masked))
                << "eod " << eod << " bos " << bos << " length " << length << " masked " << masked << " row "
                << r;
        }
  }
}

TEST(Loader, SequentialShowsEveryTargetOnce) {
  for (const int64_t length : {1, 7, 64, 5000}) {
    const auto made = make(40, true, false);
    for (const auto mode : {PackingMode::kDocumentMasks, PackingMode::kConcatenated}) {
      const Loader loader(made->fs, "d", options(length, mode, true));
      std::vector<int32_t> targets;
      Batch b;
      for (uint64_t s = 0; s < loader.samples_per_epoch() + 2; s += 3) {  // rows past the end are padding
        loader.fill(s, 3, b);
        for (const int32_t t : b.targets)
          if (t >= 0) targets.push_back(t);
      }
      EXPECT_EQ(targets, made->stream);
      EXPECT_EQ(loader.targets_per_epoch(), made->stream.size());
      EXPECT_EQ(loader.text_bytes(), 200u);
    }
  }
}

TEST(Loader, EverySampleOncePerEpochAndEpochsDiffer) {
  const auto made = make(60, true, false);
  const Loader loader(made->fs, "d", options(8));
  const uint64_t s = loader.samples_per_epoch();
  ASSERT_EQ(s, made->stream.size() / 8);
  std::vector<std::vector<uint64_t>> orders;
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<uint64_t> order;
    for (uint64_t i = 0; i < s; ++i) {
      order.push_back(loader.window_of(epoch * s + i));
      EXPECT_EQ(loader.sample_of(epoch, order.back()), epoch * s + i);
    }
    EXPECT_EQ(std::set<uint64_t>(order.begin(), order.end()).size(), s);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  const Loader other(made->fs, "d", options(8, PackingMode::kDocumentMasks, false, 4));
  uint64_t same = 0;
  for (uint64_t i = 0; i < s; ++i) same += other.window_of(i) == orders[0][i];
  EXPECT_LT(same, s / 4);
}

TEST(Loader, BatchSizeAndCallOrderDoNotMatter) {
  const auto made = make(60, true, false);
  const Loader loader(made->fs, "d", options(16));
  const auto all = static_cast<int64_t>(2 * loader.samples_per_epoch() + 5);
  Batch whole, part;
  loader.fill(0, all, whole);
  for (const int64_t rows : {1, 2, 5, 32})
    for (int64_t first = all / rows * rows; first >= 0; first -= rows) {
      const int64_t n = std::min(rows, all - first);
      loader.fill(static_cast<uint64_t>(first), n, part);
      for (int64_t r = 0; r < n; ++r) ASSERT_EQ(row_of(part, r), row_of(whole, first + r));
    }
  loader.fill(0, 0, part);
  EXPECT_TRUE(part.tokens.empty());
}

TEST(Loader, NoTokenAttendsToAnotherDocument) {
  for (const bool bos : {false, true}) {
    const auto made = make(80, true, bos);
    const Loader loader(made->fs, "d", options(48));
    Batch b;
    loader.fill(0, static_cast<int64_t>(loader.samples_per_epoch()), b);
    for (int64_t r = 0; r < b.rows; ++r)
      for (int64_t t = 0; t < b.length; ++t) {
        const auto base = static_cast<size_t>(r * b.length);
        const auto start = b.document_start[base + static_cast<size_t>(t)];
        std::set<int32_t> words;  // the words of all tokens that t may attend to are one document's
        for (int64_t k = start; k <= t; ++k) {
          const int32_t word = b.tokens[base + static_cast<size_t>(k)];
          if (word > kBos) words.insert(word);
        }
        ASSERT_LE(words.size(), 1u) << "row " << r << " cell " << t;
        ASSERT_EQ(b.positions[base + static_cast<size_t>(t)], t - start);
      }
  }
}

TEST(Loader, ManyThreadsSeeTheSame) {
  const auto made = make(60, true, false);
  const Loader loader(made->fs, "d", options(16));
  Batch whole;
  loader.fill(0, 64, whole);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&, k] {
      Batch b;
      for (int64_t i = 0; i < 64; ++i) {
        const int64_t s = (i * 7 + k * 16) % 64;
        loader.fill(static_cast<uint64_t>(s), 1, b);
        if (row_of(b, 0) != row_of(whole, s)) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Loader, FewOpenShardsGiveTheSameBytes) {
  const auto made = make(60, true, false, 2);
  const Loader normal(made->fs, "d", options(64));
  const Loader tight(Dataset::open(made->fs, "d"), options(64),
                     local_shard_source(Dataset::open(made->fs, "d"), "train", 1));
  Batch a, b;
  normal.fill(0, 20, a);
  tight.fill(0, 20, b);
  EXPECT_EQ(a, b);
}

TEST(Loader, ErrorsSayWhatToDo) {
  const auto made = make(5, true, false);
  EXPECT_NE(message_of([&] { Loader(made->fs, "d", options(100000)); }, ErrorKind::kUsage)
                .find("Use a shorter sequence_length or more data"),
            std::string::npos);
  EXPECT_NE(message_of([&] { Loader(made->fs, "d", options(0)); }, ErrorKind::kUsage)
                .find("sequence_length: expected at least 1"),
            std::string::npos);
  LoaderOptions no_split = options(4);
  no_split.split = "test";
  EXPECT_NE(message_of([&] { Loader(made->fs, "d", no_split); }, ErrorKind::kUsage).find("it has train"),
            std::string::npos);
  // A token outside the vocabulary is refused before a model uses it as an index.
  made->fs.flip_bit("d/train_00000.bin", 1, 6);
  const Loader loader(made->fs, "d", options(4));
  Batch b;
  EXPECT_NE(message_of([&] { loader.fill(0, static_cast<int64_t>(loader.samples_per_epoch()), b); },
                       ErrorKind::kData)
                .find("the vocabulary has 1000"),
            std::string::npos);
}

TEST(Prefetcher, GivesWhatTheLoaderGivesFromAnywhere) {
  const auto made = make(60, true, false);
  const Loader loader(made->fs, "d", options(16));
  Prefetcher prefetcher(loader, 3, 2);
  Batch got, expected;
  for (const uint64_t from : {2, 100, 0, 7}) {
    if (from != 2) prefetcher.seek(from);
    for (uint64_t i = from; i < from + 6; ++i) {
      EXPECT_EQ(prefetcher.position(), i);
      prefetcher.next(got);
      loader.fill(3 * i, 3, expected);
      ASSERT_EQ(got, expected) << "batch " << i;
    }
  }
  EXPECT_GE(prefetcher.wait_s(), 0);
}

TEST(Prefetcher, ErrorsArriveInTheirTurn) {
  const auto made = make(60, true, false);
  const Loader loader(made->fs, "d", options(16));
  Prefetcher prefetcher(
      loader,
      [](uint64_t i) {
        if (i == 2) fail(ErrorKind::kStorage, "batch two");
        return SampleRange{i, 1};
      },
      0, 1);
  Batch b;
  prefetcher.next(b);
  prefetcher.next(b);
  EXPECT_THROW(prefetcher.next(b), Error);
  EXPECT_THROW(prefetcher.next(b), Error);
  prefetcher.seek(10);
  prefetcher.next(b);
  EXPECT_EQ(prefetcher.position(), 11u);
}

// A manifest of ten billion samples whose shards do not exist: constructing and seeking touches none of them.
class NoSource final : public ShardSource {
 public:
  void read(size_t, uint64_t, std::span<int32_t> out) override { std::fill(out.begin(), out.end(), 5); }
  std::unique_ptr<io::ReadableFile> open_side(const FileRecord&) override {
    fail(ErrorKind::kInternal, "no file is opened");
  }
  void document_starts(size_t, uint64_t, uint64_t, std::vector<uint64_t>&) override {}
};

TEST(Loader, TenBillionSamplesStartAtOnce) {
  io::MemoryFileSystem fs;
  Manifest m;
  m.tokenizer = {{"tokenizer.json", 2, {}}, kVocabulary, kEod, -1};
  m.sources = {"sources.jsonl", 0, {}};
  SplitRecord split{"train", 0, 0, 0, {}};
  constexpr uint64_t kShards = 20, kPerShard = uint64_t{1} << 40;
  for (uint64_t s = 0; s < kShards; ++s) {
    const std::string name = fmt::format("train_{:05}", s);
    split.add(
        {1, kPerShard, 3 * kPerShard, {name + ".bin", 2 * kPerShard, {}}, {name + ".idx", 62, {}}, {}, {}});
  }
  m.splits.push_back(split);
  put(fs, "manifest.json", m.to_json());
  const Loader loader(Dataset::open(fs, "manifest.json"), options(2048), std::make_unique<NoSource>());
  ASSERT_EQ(loader.samples_per_epoch(), kShards * kPerShard / 2048);
  ASSERT_GT(loader.samples_per_epoch(), 10'000'000'000u);
  Batch b;
  std::set<uint64_t> windows;
  for (uint64_t n = 0; n < 1000; ++n) {
    const uint64_t sample = n * 9'999'991 + 123;
    windows.insert(loader.window_of(sample));
    EXPECT_EQ(loader.sample_of(0, loader.window_of(sample)), sample);
  }
  EXPECT_EQ(windows.size(), 1000u);
  loader.fill(9'999'999'999, 2, b);
  EXPECT_EQ(b.tokens[5], 5);
}

// Packed rows: every predictable token is predicted once, from the token before it, in a piece that sees nothing else.
TEST(Loader, PackedRowsPredictEveryTokenOnce) {
  for (const bool bos : {false, true})
    for (const bool masked : {true, false}) {
      const auto made = make(60, true, bos);
      const auto plan = build_pack_plan(made->fs, Dataset::open(made->fs, "d"), "train",
                                        default_plan_name("train", 24), 24);
      LoaderOptions options{"train", 24, 5, masked ? PackingMode::kDocumentMasks : PackingMode::kConcatenated,
                            false,   "", 0, "",
                            0};
      options.plan = default_plan_name("train", 24);
      const Loader loader(made->fs, "d", options);
      ASSERT_EQ(loader.samples_per_epoch(), plan.rows);
      std::vector<int> seen(made->stream.size(), 0);
      Batch b;
      uint64_t targets = 0;
      for (uint64_t n = 0; n < plan.rows; ++n) {
        loader.fill(n, 1, b);
        size_t at = 0;
        for (const auto& range : loader.predicted_by(loader.window_of(n)))
          for (uint64_t t = 0; t < range.count; ++t, ++at) {
            const uint64_t position = range.first + t;
            ++seen[position];
            EXPECT_EQ(b.targets[at], made->stream[position]);
            EXPECT_EQ(b.tokens[at], position ? made->stream[position - 1] : kEod);
            EXPECT_EQ(b.positions[at], static_cast<int32_t>(masked ? t : at));
            EXPECT_EQ(b.document_start[at], static_cast<int32_t>(masked ? at - t : 0));
          }
        EXPECT_EQ(loader.targets_of(n), at);
        targets += at;
        for (; at < 24; ++at) EXPECT_EQ(b.targets[at], -1);
      }
      EXPECT_EQ(targets, plan.tokens);
      size_t next = 0;
      for (uint64_t t = 0; t < seen.size(); ++t) {
        const bool begins = next < made->starts.size() && made->starts[next] == t;
        next += begins;
        EXPECT_EQ(seen[t], bos && begins ? 0 : 1) << t;
      }
    }
}

TEST(Loader, APlanOfAnotherLengthOrDatasetIsRefused) {
  const auto made = make(60, true, false);
  build_pack_plan(made->fs, Dataset::open(made->fs, "d"), "train", "p", 24);
  LoaderOptions options{"train", 32, 5, PackingMode::kDocumentMasks, false, "", 0, "", 0};
  options.plan = "p";
  EXPECT_THROW(Loader(made->fs, "d", options), Error);
  options.plan = "q";
  try {
    Loader(made->fs, "d", options);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("stoker data pack d --split train"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace stoker::data
