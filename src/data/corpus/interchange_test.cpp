#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "base/error.h"
#include "data/corpus/build_shards.h"
#include "data/corpus/document_reader.h"
#include "data/corpus/export_dataset.h"
#include "data/corpus/member_stream.h"
#include "io/memory_file_system.h"

namespace stoker::corpus {
namespace {

const bool kQuiet = setenv("STOKER_PROGRESS", "0", 1) == 0;

std::string golden(const std::string& name) {
  return std::string(STOKER_SOURCE_DIR) + "/tests/golden/interchange/" + name;
}

// The documents of one file, "record:text", and what was bad.
std::vector<std::string> read(io::FileSystem& fs, const std::string& path, ReadOptions options = {}) {
  const auto list = list_sources(fs, {path});
  DocumentReader reader(fs, list.files, options);
  std::vector<std::string> out;
  while (auto load = reader.next()) {
    Opened opened = reader.open(std::move(*load));
    for (auto& d : opened.documents) out.push_back(std::to_string(d.record) + ":" + d.text);
    for (auto& b : opened.bad) out.push_back("bad " + b.reason);
    for (uint64_t i = 0; i < opened.empty; ++i) out.push_back("empty");
  }
  return out;
}

// The texts of tests/golden/make_interchange.py.
const std::vector<std::string> kExpected{"0:first document", "1:zweites Dokument mit \xc3\xa9\n",
                                         "3:" + std::string(300, 'x'), "empty"};

TEST(Interchange, ReadsWhatOtherToolsWrote) {
  EXPECT_TRUE(kQuiet);
  auto& fs = io::real_file_system();
  for (const char* name : {"text.mds", "gnu.tar", "pax.tar"})
    EXPECT_EQ(read(fs, golden(name)), kExpected) << name;
  ReadOptions json;
  json.tar_member = "json";
  EXPECT_EQ(read(fs, golden("pax.tar"), json),
            (std::vector<std::string>{"0:json 0", "1:json 1", "2:json 2", "3:json 3"}));
}

TEST(Interchange, PickledColumnsAreRefused) {
  const auto out = read(io::real_file_system(), golden("pickled.mds"));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_NE(out[0].find("pickled.mds: column \"text\" is pickled"), std::string::npos) << out[0];
  ReadOptions other;
  other.json_field = "body";
  EXPECT_NE(read(io::real_file_system(), golden("text.mds"), other)
                .at(0)
                .find("no column \"body\": the shard has blob, id, text"),
            std::string::npos);
}

TEST(Interchange, EveryTruncationAndEveryFlippedByteIsSurvived) {
  for (const char* name : {"text.mds", "gnu.tar"}) {
    const std::string good = io::read_text(io::real_file_system(), golden(name));
    const std::string file = std::string("f") + (name[0] == 't' ? ".mds" : ".tar");
    for (size_t i = 0; i < good.size(); i += name[0] == 't' ? 1 : 97) {
      io::MemoryFileSystem fs;
      fs.create(file)->append(good.substr(0, i));
      const auto cut = read(fs, file);
      if (i > 0 && name[0] == 't') {
        EXPECT_EQ(std::count_if(cut.begin(), cut.end(), [](const auto& d) { return d.starts_with("bad "); }),
                  1)
            << i;
      }
      io::MemoryFileSystem flipped;
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 0x55);
      flipped.create(file)->append(bad);
      (void)read(flipped, file);  // some error, or other text; never more
    }
  }
}

TEST(Interchange, LongMembersAreReportedAndSkipped) {
  ReadOptions small;
  small.max_document_bytes = 100;
  for (const char* name : {"text.mds", "gnu.tar"}) {
    const auto out = read(io::real_file_system(), golden(name), small);
    EXPECT_EQ(std::count_if(out.begin(), out.end(), [](const auto& s) { return s.find("bad a ") == 0; }), 1)
        << name;
    EXPECT_EQ(out[0], "0:first document");
  }
}

TEST(Interchange, ExportsReadBackAsTheSameDocuments) {
  io::MemoryFileSystem fs;
  fs.make_dirs("in");
  for (int i = 0; i < 40; ++i)
    fs.create(fmt::format("in/{:02}.txt", i))
        ->append(fmt::format("text {} {}\n\xc3\xa9", i, std::string(static_cast<size_t>(i * 37), 'y')));
  PrepareOptions options;
  options.inputs = {"in"};
  options.out = "d";
  options.vocabulary = 280;
  options.held_out_ppm = 0;
  options.threads = 2;
  prepare(fs, options);
  const auto dataset = data::Dataset::open(fs, "d");
  const auto hashes = [&](const std::string& path) {
    std::vector<Hash128> out;
    const auto d = data::Dataset::open(fs, path);
    for (const auto& s : d.split("train").shards) {
      const auto bytes = fs.open_read(d.path_of(s.docs));
      const auto table = data::DocumentTable::parse(bytes->map(), "docs");
      for (uint64_t i = 0; i < table.documents(); ++i) out.push_back(table.at(i).text_hash);
    }
    return out;
  };
  for (const auto& [name, out, input] :
       {std::tuple{"jsonl", "x.jsonl", "x.jsonl"}, {"tar", "x.tar", "x.tar"}, {"mds", "x-mds", "x-mds"}}) {
    ExportOptions e;
    e.format = export_format_from_string(name);
    e.shard_bytes = 5000;
    EXPECT_EQ(export_dataset(fs, dataset, out, e), 40u);
    PrepareOptions again = options;
    again.inputs = {input};
    again.out = std::string("d-") + name;
    EXPECT_EQ(prepare(fs, again).documents, 40u);
    EXPECT_EQ(hashes(again.out), hashes("d")) << name;
    EXPECT_THROW(export_dataset(fs, dataset, out, e), Error);
  }
  EXPECT_GT(fs.list("x-mds").size(), 3u);  // several shards and the index
}

}  // namespace
}  // namespace stoker::corpus
