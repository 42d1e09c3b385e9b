#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/expect_error.h"
#include "base/random.h"
#include "data/corpus/build_shards.h"
#include "data/shard/dataset.h"
#include "data/tokenizer/tokenizer.h"
#include "io/faulty_file_system.h"
#include "io/memory_file_system.h"

namespace stoker::corpus {
namespace {

void put(io::FileSystem& fs, const std::string& path, std::string_view contents) {
  fs.make_dirs(io::parent_of(path));
  const auto f = fs.create(path);
  f->append(contents);
  f->sync();
  f->close();
  fs.sync_dir(io::parent_of(path));
}

const bool kQuietBuild = setenv("STOKER_PROGRESS", "0", 1) == 0;

std::string words(uint64_t seed, size_t count) {
  static constexpr const char* kWords[] = {"furnace",  "coal",  "shovel", "steam", "engine",
                                           "pressure", "night", "ship",   "heat",  "fire"};
  std::string s;
  for (size_t i = 0; i < count; ++i)
    s += std::string(kWords[random_u64({seed, 1}, i) % 10]) + (i % 11 == 10 ? ".\n" : " ");
  return s;
}

void make_corpus(io::FileSystem& fs) {
  std::string lines;
  for (uint64_t i = 0; i < 120; ++i)
    lines += "{\"text\": \"record " + std::to_string(i) + " " + words(1000 + i, 5).substr(0, 20) + "\"}\n";
  put(fs, "in/lines.jsonl", lines);
  for (uint64_t i = 0; i < 30; ++i) put(fs, "in/" + std::to_string(i) + ".txt", words(i, 20 + i * 7));
}

PrepareOptions options(int threads = 2) {
  PrepareOptions o;
  o.inputs = {"in"};
  o.out = "d";
  o.vocabulary = 300;
  o.held_out_ppm = 200000;
  o.threads = threads;
  o.read.load_bytes = 2000;
  o.shard_bytes = 3000;
  return o;
}

std::map<std::string, std::string> contents(io::FileSystem& fs, const std::string& dir) {
  std::map<std::string, std::string> out;
  for (const auto& name : fs.list(dir))
    if (name != "build.json") out[name] = io::read_text(fs, io::join(dir, name));
  return out;
}

TEST(Prepare, TheDatasetHoldsEveryDocumentOnceAndIsSound) {
  io::MemoryFileSystem fs;
  make_corpus(fs);
  const auto report = prepare(fs, options());
  EXPECT_TRUE(kQuietBuild);
  EXPECT_EQ(report.documents, 150u);
  const auto dataset = data::Dataset::open(fs, "d");
  EXPECT_EQ(dataset.hash(), report.version);
  EXPECT_TRUE(dataset.verify().empty());
  EXPECT_GT(dataset.split("train").shards.size(), 1u);
  const auto tokenizer = tokenizer::Tokenizer::from_json(io::read_text(fs, "d/tokenizer.json"));
  // Decoding every document gives the source texts back, in order within each split; the two splits are
  // disjoint by text.
  std::multimap<std::string, std::string> found;
  uint64_t bytes = 0;
  for (const char* name : {"train", "held_out"}) {
    const auto& split = dataset.split(name);
    EXPECT_GT(split.documents, 5u);
    std::pair<uint32_t, uint64_t> before{0, 0};
    for (uint64_t d = 0; d < split.documents; ++d) {
      const auto place = data::locate_document(dataset, fs, split, d);
      const auto shard = dataset.open_shard(split.shards[place.shard]);
      std::vector<int32_t> tokens(place.tokens);
      shard->read(shard->document_start(place.in_shard), tokens);
      ASSERT_EQ(tokens.back(), *tokenizer.end_of_text());
      tokens.pop_back();
      const std::string text = tokenizer.decode(tokens);
      EXPECT_EQ(hash128(text), place.origin.text_hash);
      EXPECT_EQ(text.size(), place.origin.text_bytes);
      bytes += text.size();
      found.emplace(text, name);
      const std::pair<uint32_t, uint64_t> now{place.origin.source, place.origin.record};
      EXPECT_LE(before, now);
      before = now;
    }
  }
  EXPECT_EQ(bytes, report.text_bytes);
  EXPECT_EQ(found.size(), 150u);
  for (uint64_t i = 0; i < 30; ++i) EXPECT_EQ(found.count(words(i, 20 + i * 7)), 1u);
}

TEST(Prepare, ThreadsAndLoadsGiveTheSameBytes) {
  io::MemoryFileSystem fs;
  make_corpus(fs);
  prepare(fs, options(1));
  const auto expected = contents(fs, "d");
  for (const int threads : {2, 5}) {
    auto o = options(threads);
    o.out = "e" + std::to_string(threads);
    o.read.load_bytes = threads == 5 ? 500 : 100000;
    prepare(fs, o);
    EXPECT_EQ(contents(fs, o.out), expected);
  }
}

TEST(Prepare, ASecondRunOnlyComparesAndAChangeIsNoticed) {
  io::MemoryFileSystem fs;
  make_corpus(fs);
  const auto first = prepare(fs, options());
  const auto again = prepare(fs, options(1));
  EXPECT_TRUE(again.unchanged);
  EXPECT_EQ(again.version, first.version);
  EXPECT_EQ(again.documents, first.documents);
  put(fs, "in/3.txt", words(3, 20 + 21) + "!");
  EXPECT_NE(message_of([&] { prepare(fs, options()); }, ErrorKind::kUsage).find("d exists already"),
            std::string::npos);
  auto replace = options();
  replace.replace = true;
  const auto third = prepare(fs, replace);
  EXPECT_FALSE(third.unchanged);
  EXPECT_NE(third.version, first.version);
  EXPECT_EQ(fs.list("."), (std::vector<std::string>{"d", "in"}));
  put(fs, "precious/file", "x");
  replace.out = "precious";
  EXPECT_NE(message_of([&] { prepare(fs, replace); }, ErrorKind::kUsage).find("is no dataset"),
            std::string::npos);
}

TEST(Prepare, TheSameTextIsAlwaysOnTheSameSide) {
  io::MemoryFileSystem fs;
  for (int copy = 0; copy < 3; ++copy)
    for (uint64_t i = 0; i < 20; ++i) put(fs, fmt::format("in/{}_{}.txt", copy, i), words(i, 30));
  prepare(fs, options());
  const auto dataset = data::Dataset::open(fs, "d");
  EXPECT_EQ(dataset.split("train").documents % 3, 0u);
  EXPECT_EQ(dataset.split("held_out").documents % 3, 0u);
  EXPECT_GT(dataset.split("held_out").documents, 0u);
}

TEST(Prepare, BadRecordsAreCountedKeptAndLimited) {
  io::MemoryFileSystem fs;
  make_corpus(fs);
  put(fs, "in/bad.jsonl", "{\"text\": \"good\"}\nbad\n{}\n");
  put(fs, "in/bad.txt", "\xff");
  auto o = options();
  const auto report = prepare(fs, o);
  EXPECT_EQ(report.bad, 3u);
  EXPECT_EQ(report.first_bad.size(), 3u);
  const std::string quarantine = io::read_text(fs, "d/quarantine.jsonl");
  EXPECT_NE(quarantine.find(R"({"input":0,"name":"bad.jsonl","reason":"no field \"text\"","record":2})"),
            std::string::npos)
      << quarantine;
  o.out = "e";
  o.max_bad = 2;
  EXPECT_NE(
      message_of([&] { prepare(fs, o); }, ErrorKind::kData).find("3 bad records, more than the 2 allowed"),
      std::string::npos);
  EXPECT_FALSE(fs.exists("e"));
  EXPECT_EQ(fs.list("."), (std::vector<std::string>{"d", "in"}));
}

// Whatever write fails, nothing half-written stays and the next run gives the bytes of an undisturbed one.
TEST(Prepare, FullDisksAndCrashesLeaveNothingHalfWritten) {
  io::MemoryFileSystem base;
  make_corpus(base);
  prepare(base, options(1));
  const auto expected = contents(base, "d");
  io::FaultyFileSystem counter(base);
  auto o = options(1);
  o.out = "count";
  prepare(counter, o);
  const uint64_t operations = counter.operations();
  ASSERT_GT(operations, 50u);
  for (uint64_t at = 0; at < operations; at += 7)
    for (const auto fault : {io::Fault::kShortWrite, io::Fault::kTornCrash}) {
      io::MemoryFileSystem fs;
      make_corpus(fs);
      io::FaultyFileSystem faulty(fs);
      faulty.arm(fault, at, 1);
      bool failed = false;
      try {
        prepare(faulty, options(1));
      } catch (const Error& e) {
        failed = true;
        EXPECT_EQ(e.kind(), ErrorKind::kStorage) << e.what();
      } catch (const io::Crashed&) {
        failed = true;
        fs.crash(io::MemoryFileSystem::Crash::kMix, at);
      }
      EXPECT_TRUE(failed);
      if (!fs.exists("d")) prepare(fs, options(1));  // what a user does next
      EXPECT_EQ(contents(fs, "d"), expected) << "fault at operation " << at;
      if (fault == io::Fault::kShortWrite) {
        EXPECT_EQ(fs.list("."), (std::vector<std::string>{"d", "in"}));
      }
    }
}

}  // namespace
}  // namespace stoker::corpus
