#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/expect_error.h"
#include "data/shard/block_sums.h"
#include "data/shard/dataset.h"
#include "data/shard/dataset_diff.h"
#include "data/shard/document_table.h"
#include "data/shard/hashed_file.h"
#include "data/shard/manifest.h"
#include "data/shard/token_file.h"
#include "data/shard/token_index.h"
#include "io/memory_file_system.h"

namespace stoker::data {
namespace {

std::string golden(const std::string& name) {
  std::ifstream in(std::string(STOKER_SOURCE_DIR) + "/tests/golden/megatron/" + name, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

// The documents of tests/golden/make_megatron.py.
std::vector<std::vector<int32_t>> golden_documents(bool wide) {
  std::vector<std::vector<int32_t>> docs{{1, 2, 3, 0}, {0}, {65499, 7, 7, 7, 7, 0}, {}, {}, {42, 0}};
  for (int32_t i = 0; i < 300; ++i) docs[3].push_back(i);
  docs[3].push_back(0);
  if (wide)
    for (auto& d : docs) d.push_back(1 << 20);
  return docs;
}

std::span<const std::byte> bytes_of(const std::string& s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

void put(io::FileSystem& fs, const std::string& path, std::string_view contents) {
  const auto f = fs.create(path);
  f->append(contents);
  f->sync();
  f->close();
}

TEST(TokenIndex, WritesWhatAnIndependentWriterWrites) {
  for (const bool wide : {false, true}) {
    const auto docs = golden_documents(wide);
    io::MemoryFileSystem fs;
    fs.make_dirs("d");
    ShardWriter writer(fs, "d", "s", wide ? TokenType::kInt32 : TokenType::kUint16);
    for (const auto& d : docs) writer.add(d, {hash128("x"), 3, 0, 0});
    const ShardRecord record = writer.finish();
    const std::string name = wide ? "i32" : "u16";
    EXPECT_EQ(io::read_text(fs, "d/s.bin"), golden(name + ".bin"));
    EXPECT_EQ(io::read_text(fs, "d/s.idx"), golden(name + ".idx"));
    EXPECT_EQ(record.bin.hash, hash128(golden(name + ".bin")));
    EXPECT_EQ(record.idx.hash, hash128(golden(name + ".idx")));
    EXPECT_EQ(record.idx.bytes, 42 + 20 * docs.size());
    EXPECT_EQ(record.text_bytes, 3 * docs.size());
  }
}

TEST(TokenIndex, ReadsWhatAnIndependentWriterWrote) {
  for (const bool wide : {false, true}) {
    const std::string prefix =
        std::string(STOKER_SOURCE_DIR) + "/tests/golden/megatron/" + (wide ? "i32" : "u16");
    const TokenFile file(io::real_file_system(), prefix + ".bin", prefix + ".idx");
    const auto docs = golden_documents(wide);
    file.index().check(file.bin().size());
    ASSERT_EQ(file.index().documents(), docs.size());
    uint64_t at = 0;
    for (size_t d = 0; d < docs.size(); ++d) {
      std::vector<int32_t> got(static_cast<size_t>(file.index().length(d)));
      ASSERT_EQ(file.first_token(d), at);
      file.read(at, got);
      EXPECT_EQ(got, docs[d]);
      for (size_t t = 0; t < got.size(); ++t) ASSERT_EQ(file.sequence_of(at + t), d);
      at += got.size();
    }
    EXPECT_EQ(at, file.tokens());
  }
}

TEST(TokenIndex, VocabularyChoosesTheType) {
  EXPECT_EQ(token_type_for_vocabulary(65499), TokenType::kUint16);
  EXPECT_EQ(token_type_for_vocabulary(65500), TokenType::kInt32);
}

TEST(TokenIndex, EveryTruncationIsADataError) {
  const std::string good = golden("u16.idx");
  for (size_t n = 0; n < good.size(); ++n)
    message_of([&] { TokenIndex::parse(bytes_of(good).subspan(0, n), "x.idx"); });
}

TEST(TokenIndex, ErrorsNameFileOffsetExpectedAndFound) {
  const std::string good = golden("u16.idx");
  auto damaged = [&](size_t at, auto value) {
    std::string bad = good;
    std::memcpy(bad.data() + at, &value, sizeof value);
    return message_of([&] { TokenIndex::parse(bytes_of(bad), "x.idx").check(golden("u16.bin").size()); });
  };
  EXPECT_EQ(damaged(0, 'X'),
            "x.idx: offset 0: expected the magic \"MMIDIDX\\0\\0\" of a Megatron index, found other bytes");
  EXPECT_EQ(damaged(9, uint64_t{2}), "x.idx: offset 9: expected index version 1, found 2");
  EXPECT_NE(damaged(17, uint8_t{7})
                .find("offset 17: expected token type 8 (uint16) or 4 (int32), found 7 (float32)"),
            std::string::npos);
  EXPECT_NE(
      damaged(18, uint64_t{7}).find("7 sequences and 7 document bounds need a file of 174 bytes, found 162"),
      std::string::npos);
  EXPECT_NE(damaged(18, ~uint64_t{0}).find("does not fit in 64 bits"), std::string::npos);
  EXPECT_NE(damaged(26, uint64_t{0}).find("offset 26"), std::string::npos);
  EXPECT_NE(damaged(34, int32_t{-1}).find("offset 34: sequence 0: expected a length >= 0, found -1"),
            std::string::npos);
  EXPECT_NE(damaged(34, int32_t{5}).find("offset 66: sequence 1: expected byte offset 10"),
            std::string::npos);
  EXPECT_NE(damaged(34 + 24 + 8, int64_t{-8}).find("found -8"), std::string::npos);
  EXPECT_NE(damaged(34 + 72, int64_t{1}).find("offset 106: document bound 0: expected 0, found 1"),
            std::string::npos);
  EXPECT_NE(damaged(34 + 72 + 8, int64_t{9}).find("document bound 1: expected 0 to 6, found 9"),
            std::string::npos);
  EXPECT_NE(damaged(34 + 72 + 48, int64_t{5})
                .find("the last document bound must be the number of sequences, 6, found 5"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              TokenIndex::parse(bytes_of(good + std::string(6, '\0')), "x.idx");
            }).find("multimodal"),
            std::string::npos);
}

TEST(TokenFile, WildPointersAreFoundWhenReadingToo) {
  io::MemoryFileSystem fs;
  std::string idx = golden("u16.idx");
  const int64_t wild = int64_t{1} << 60;
  std::memcpy(idx.data() + 34 + 24 + 8, &wild, 8);
  put(fs, "x.idx", idx);
  put(fs, "x.bin", golden("u16.bin"));
  const TokenFile file(fs, "x.bin", "x.idx");
  EXPECT_NE(message_of([&] { file.first_token(1); }).find("x.idx: offset 66"), std::string::npos);
  put(fs, "x.bin", golden("u16.bin").substr(2));
  EXPECT_NE(message_of([&] { TokenFile(fs, "x.bin", "x.idx"); }).find("says it ends at byte"),
            std::string::npos);
}

TEST(ShardWriter, MoreDocumentsThanItHoldsInMemory) {
  io::MemoryFileSystem fs;
  fs.make_dirs("d");
  constexpr uint64_t kDocuments = 2 * RecordLog<int>::kHeld + 5;
  ShardRecord record;
  {
    ShardWriter writer(fs, "d", "s", TokenType::kInt32);
    for (uint64_t i = 0; i < kDocuments; ++i) {
      const std::vector<int32_t> tokens(1 + i % 3, static_cast<int32_t>(i));
      writer.add(tokens, {{i, ~i}, i, i / 2, static_cast<uint32_t>(i % 7)});
    }
    record = writer.finish();
  }
  EXPECT_EQ(fs.list("d"), (std::vector<std::string>{"s.bin", "s.docs", "s.idx", "s.sums"}));
  const TokenFile shard(fs, "d/s.bin", "d/s.idx");
  shard.index().check(record.bin.bytes);
  const auto file = fs.open_read("d/s.docs");
  EXPECT_EQ(record.docs.bytes, file->size());
  EXPECT_EQ(record.docs.hash, hash128(file->text()));
  const auto table = DocumentTable::parse(file->map(), "s.docs");
  ASSERT_EQ(table.documents(), kDocuments);
  ASSERT_EQ(shard.index().documents(), kDocuments);
  for (uint64_t i = 0; i < kDocuments; ++i) {
    ASSERT_EQ(table.at(i), (DocumentOrigin{{i, ~i}, i, i / 2, static_cast<uint32_t>(i % 7)}));
    ASSERT_EQ(shard.index().length(i), static_cast<int32_t>(1 + i % 3));
  }
}

TEST(ShardWriter, TakesNoMemoryPerDocument) {
  const std::string directory =
      std::filesystem::temp_directory_path() / fmt::format("stoker_shard_{}", ::getpid());
  std::filesystem::create_directories(directory);
  const auto held = [] {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = held();
  {
    ShardWriter writer(io::real_file_system(), directory, "s", TokenType::kUint16);
    for (uint64_t i = 0; i < 200000; ++i) writer.add(std::vector<int32_t>{1, 0}, {{i, i}, 5, i, 0});
    EXPECT_LT(held() - before, size_t{4} << 20);  // 48 bytes of each would be 9.6 MB
    writer.finish();
  }
  EXPECT_EQ(TokenFile(io::real_file_system(), directory + "/s.bin", directory + "/s.idx").index().documents(),
            200000u);
  std::filesystem::remove_all(directory);
}

TEST(DocumentTable, RoundTripsAndRefusesDamage) {
  const std::vector<DocumentOrigin> docs{{hash128("a"), 1, 2, 3},
                                         {hash128("b"), uint64_t{1} << 40, uint64_t{1} << 33, 7}};
  io::MemoryFileSystem fs;
  const auto written = fs.create("x.docs");
  HashedFile out(*written);
  put_document_table_head(out, docs.size());
  for (const auto& d : docs) put_document(out, d);
  out.finish("x.docs");
  const auto file = fs.open_read("x.docs");
  const auto bytes = file->map();
  const auto table = DocumentTable::parse(bytes, "x.docs");
  ASSERT_EQ(table.documents(), 2u);
  EXPECT_EQ(table.at(0), docs[0]);
  EXPECT_EQ(table.at(1), docs[1]);
  for (size_t n = 0; n < bytes.size(); ++n)
    message_of([&] { DocumentTable::parse(bytes.first(n), "x.docs"); });
}

TEST(BlockSums, AnyPiecesGiveTheSameSumsAndOneBitIsNoticed) {
  std::vector<std::byte> data(3 * kSumBlockBytes + 12345);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 2654435761u >> 13);
  BlockSummer whole;
  whole.update(data);
  const BlockSums expected = whole.finish();
  for (const size_t piece : {size_t{1000}, size_t{kSumBlockBytes}, size_t{300000}}) {
    BlockSummer s;
    for (size_t at = 0; at < data.size(); at += piece)
      s.update(std::span(data).subspan(at, std::min(piece, data.size() - at)));
    EXPECT_EQ(s.finish().sums, expected.sums);
  }
  const auto parsed = BlockSums::parse(expected.encode(), "x.sums");
  ASSERT_EQ(parsed.sums, expected.sums);
  ASSERT_EQ(parsed.sums.size(), 4u);
  for (uint64_t b = 0; b < 4; ++b) {
    auto block = std::span(data).subspan(b * kSumBlockBytes, parsed.block_size(b));
    EXPECT_TRUE(parsed.matches(b, block));
    block[parsed.block_size(b) / 2] ^= std::byte{4};
    EXPECT_FALSE(parsed.matches(b, block));
  }
}

Manifest build_dataset(io::FileSystem& fs, const std::string& dir) {
  fs.make_dirs(dir);
  Manifest m;
  put(fs, dir + "/tokenizer.json", "{}");
  put(fs, dir + "/sources.jsonl", "");
  m.tokenizer = {{"tokenizer.json", 2, hash128("{}")}, 65500 - 1, 0, -1};
  m.sources = {"sources.jsonl", 0, hash128("")};
  m.settings = R"({"held_out_ppm":10000})";
  SplitRecord train{"train", 0, 0, 0, {}};
  for (int s = 0; s < 2; ++s) {
    ShardWriter w(fs, dir, fmt::format("train_0000{}", s), TokenType::kUint16);
    for (const auto& d : golden_documents(false)) w.add(d, {hash128("t"), 10, 0, 0});
    train.add(w.finish());
  }
  m.splits.push_back(train);
  put(fs, dir + "/manifest.json", m.to_json() + "\n");
  return m;
}

TEST(Manifest, RoundTripsAndItsHashIsItsVersion) {
  io::MemoryFileSystem fs;
  const Manifest m = build_dataset(fs, "d");
  EXPECT_EQ(Manifest::parse(m.to_json(), "m"), m);
  const Dataset dataset = Dataset::open(fs, "d");
  EXPECT_EQ(dataset.manifest(), m);
  EXPECT_EQ(dataset.hash(), m.hash());
  EXPECT_EQ(dataset.split("train").documents, 12u);
  Manifest other = m;
  other.settings = R"({"held_out_ppm":10001})";
  EXPECT_NE(other.hash(), m.hash());
  // White space and key order do not count.
  EXPECT_EQ(canonical_json("{ \"b\" : 1,\n \"a\" : [ 2 ] }", "x"), R"({"a":[2],"b":1})");
}

TEST(DatasetDiff, OfListsWhatOneHasAndTheOtherHasNot) {
  io::MemoryFileSystem fs;
  auto with = [&](const std::string& dir, const std::string& settings) {
    Manifest m = build_dataset(fs, dir);
    m.settings = settings;
    put(fs, dir + "/manifest.json", m.to_json() + "\n");
    return Dataset::open(fs, dir);
  };
  const Dataset before = with("a", R"({"n":1,"stages":["exact","near","pii"]})");
  const Dataset after = with("b", R"({"n":2,"stages":["exact","near 2","pii","label"]})");
  const Dataset turned = with("c", R"({"n":1,"stages":["near","exact","pii"]})");
  EXPECT_EQ(diff_datasets(before, after, fs).settings,
            (std::vector<std::string>{"n: 1 -> 2", R"(stages: "near" -> nothing)",
                                      R"(stages: nothing -> "near 2")", R"(stages: nothing -> "label")"}));
  EXPECT_EQ(diff_datasets(before, turned, fs).settings,
            (std::vector<std::string>{R"(stages: ["exact","near","pii"] -> ["near","exact","pii"])"}));
}

// The stages of a build, by the keys of the recipe.
TEST(DatasetDiff, OfNamedEntriesSaysWhatChangedInThem) {
  io::MemoryFileSystem fs;
  auto with = [&](const std::string& dir, const std::string& stages) {
    Manifest m = build_dataset(fs, dir);
    m.settings = R"({"stages":[)" + stages + "]}";
    put(fs, dir + "/manifest.json", m.to_json() + "\n");
    return Dataset::open(fs, dir);
  };
  const Dataset before = with("a", R"({"use":"near","n":5,"rows":8},{"use":"exact"})");
  const Dataset after = with("b", R"({"use":"near","n":13,"rows":8},{"use":"label","name":"web"})");
  const Dataset turned = with("c", R"({"use":"exact"},{"use":"near","n":5,"rows":8})");
  EXPECT_EQ(diff_datasets(before, after, fs).settings,
            (std::vector<std::string>{R"(stages.exact: {"use":"exact"} -> nothing)", "stages.near.n: 5 -> 13",
                                      R"(stages.label web: nothing -> {"name":"web","use":"label"})"}));
  EXPECT_EQ(diff_datasets(before, turned, fs).settings.size(), 1u);
}

TEST(Manifest, RefusesWhatItDoesNotUnderstand) {
  io::MemoryFileSystem fs;
  const std::string good = build_dataset(fs, "d").to_json();
  auto with = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    const size_t at = bad.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    bad.replace(at, from.size(), to);
    return message_of([&] { Manifest::parse(bad, "m.json"); });
  };
  EXPECT_EQ(with(R"("version":1)", R"("version":2)"),
            "m.json: field \"version\": this Stoker reads version 1, found 2");
  EXPECT_NE(with(R"("format":"stoker-dataset")", R"("format":"x")").find("not a Stoker dataset"),
            std::string::npos);
  EXPECT_NE(with(R"("eod":0)", R"("eod":65499)").find("outside its vocabulary"), std::string::npos);
  EXPECT_NE(with(R"("eod":0)", R"("eod":-3)")
                .find("field \"tokenizer.eod\": expected a token id or null, found -3"),
            std::string::npos);
  EXPECT_NE(with(R"("bos":null)", R"("bos":null,"boss":1)").find("unknown field \"tokenizer.boss\""),
            std::string::npos);
  EXPECT_NE(with(R"("bos":null)", R"("bos":null,"bos":1)").find("is there twice"), std::string::npos);
  EXPECT_NE(with(R"("bos":null)", R"("bos":1.5)").find("whole numbers"), std::string::npos);
  EXPECT_NE(with(R"("bos":null,)", "").find("\"tokenizer.bos\" is missing"), std::string::npos);
  EXPECT_NE(with("train_00001.bin", "../../etc/passwd").find("plain file name"), std::string::npos);
  EXPECT_NE(with("train_00001.bin", "train_00000.bin").find("named twice"), std::string::npos);
  EXPECT_NE(with(R"("documents":12)", R"("documents":13)")
                .find("\"splits.train.documents\": its shards add up to 12, found 13"),
            std::string::npos);
  EXPECT_NE(with(R"("token_type":"uint16")", R"("token_type":"int32")")
                .find("314 tokens of int32 are 1256 bytes, found 628"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              Manifest::parse(std::string(100, '[') + std::string(100, ']'), "m");
            }).find("nested deeper"),
            std::string::npos);
  for (size_t n = 0; n < good.size(); n += 7) message_of([&] { Manifest::parse(good.substr(0, n), "m"); });
  EXPECT_NE(message_of([&] { Dataset::open(fs, "d").split("test"); }, ErrorKind::kUsage).find("it has train"),
            std::string::npos);
  EXPECT_NE(message_of([&] { Dataset::open(fs, "nowhere"); }, ErrorKind::kUsage).find("stoker data prepare"),
            std::string::npos);
}

TEST(Dataset, VerifyFindsEveryKindOfDamage) {
  io::MemoryFileSystem fs;
  build_dataset(fs, "d");
  const Dataset dataset = Dataset::open(fs, "d");
  EXPECT_TRUE(dataset.verify().empty());
  fs.flip_bit("d/train_00001.bin", 100);
  fs.truncate("d/train_00000.docs", 50);
  fs.remove("d/tokenizer.json");
  const auto faults = dataset.verify();
  ASSERT_EQ(faults.size(), 3u);
  EXPECT_NE(faults[0].find("tokenizer.json: the manifest names it, but it is missing"), std::string::npos);
  EXPECT_NE(faults[1].find("train_00000.docs: expected 264 bytes, found 50"), std::string::npos);
  EXPECT_NE(faults[2].find("train_00001.bin: expected content hash"), std::string::npos);
}

TEST(Dataset, DocumentsAreFoundByNumber) {
  io::MemoryFileSystem fs;
  build_dataset(fs, "d");
  const Dataset dataset = Dataset::open(fs, "d");
  const auto& split = dataset.split("train");
  const DocumentPlace place = locate_document(dataset, fs, split, 8);
  EXPECT_EQ(place.shard, 1u);
  EXPECT_EQ(place.in_shard, 2u);
  EXPECT_EQ(place.first_token, 314u + 5);
  EXPECT_EQ(place.tokens, 6u);
  EXPECT_EQ(place.origin.text_bytes, 10u);
  message_of([&] { locate_document(dataset, fs, split, 12); }, ErrorKind::kUsage);
}

}  // namespace
}  // namespace stoker::data
