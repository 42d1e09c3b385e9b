#include <gtest/gtest.h>

#include "base/error.h"
#include "data/corpus/parquet_reader.h"
#include "io/memory_file_system.h"

namespace stoker::corpus {
namespace {

std::string golden_rows(const std::string& name) {
  return std::string(STOKER_SOURCE_DIR) + "/tests/golden/parquet/" + name;
}

std::vector<RawRecord> read_rows(io::FileSystem& fs, const std::string& path, RecordOptions options = {}) {
  std::vector<RawRecord> out;
  const auto reader = make_parquet_reader(fs, path, options);
  for (RawRecord record; reader->next(record);) out.push_back(record);
  return out;
}

TEST(Parquet, SaysWhetherItIsBuiltIn) {
  if (parquet_built_in()) {
    EXPECT_EQ(parquet_support().find("built in (Arrow "), 0u);
    return;
  }
  EXPECT_NE(parquet_support().find("./dev parquet"), std::string::npos);
  try {
    make_parquet_reader(io::real_file_system(), golden_rows("rows.parquet"), {});
    FAIL() << "read Parquet without Arrow";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("./dev parquet"), std::string::npos);
  }
}

TEST(Parquet, RowsInOrderOverPagesAndGroups) {
  if (!parquet_built_in()) GTEST_SKIP() << "Parquet is not built in (./dev parquet)";
  const auto rows = read_rows(io::real_file_system(), golden_rows("rows.parquet"));
  ASSERT_EQ(rows.size(), 600u);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].number, i);
    EXPECT_EQ(rows[i].name, "http://x/" + std::to_string(i));
    if (i >= 5 && i <= 7) continue;
    std::string text = "row " + std::to_string(i) + ": ";
    for (size_t k = 0; k < i % 7; ++k) text += "words ";
    EXPECT_EQ(rows[i].bytes, text);
    EXPECT_EQ(rows[i].bad, "");
  }
  EXPECT_EQ(rows[5].bad, "the text is null");
  EXPECT_EQ(rows[6].bytes, "");
  EXPECT_EQ(rows[7].bytes, "caf\xC3\xA9 \xF0\x9F\x98\x80");
  EXPECT_EQ(read_rows(io::real_file_system(), golden_rows("rows-v2.parquet")).size(), 20u);
}

TEST(Parquet, WrongColumnsCutFilesAndLongTextsAreBadRecords) {
  if (!parquet_built_in()) GTEST_SKIP() << "Parquet is not built in (./dev parquet)";
  RecordOptions options;
  options.text_field = "body";
  auto rows = read_rows(io::real_file_system(), golden_rows("rows.parquet"), options);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_NE(rows[0].bad.find("no column 'body'; there are text, url, n"), std::string::npos) << rows[0].bad;
  options.text_field = "n";
  EXPECT_NE(read_rows(io::real_file_system(), golden_rows("rows.parquet"), options)
                .at(0)
                .bad.find("holds no strings"),
            std::string::npos);
  options.text_field = "text";
  options.max_record_bytes = 20;
  size_t long_ones = 0;
  for (const auto& row : read_rows(io::real_file_system(), golden_rows("rows.parquet"), options))
    long_ones += row.bad == "longer than 20 bytes";
  EXPECT_GT(long_ones, 100u);
  // Cut anywhere, and with any byte changed: an end, never a crash.
  const std::string whole = io::read_text(io::real_file_system(), golden_rows("rows-v2.parquet"));
  for (size_t cut = 0; cut < whole.size(); cut += 7) {
    io::MemoryFileSystem fs;
    fs.create("cut")->append(std::string_view(whole).substr(0, cut));
    const auto found = read_rows(fs, "cut");
    ASSERT_FALSE(found.empty());
    EXPECT_NE(found.back().bad, "");
    std::string changed = whole;
    changed[cut] = static_cast<char>(~changed[cut]);
    fs.create("changed")->append(changed);
    EXPECT_LE(read_rows(fs, "changed").size(), 21u);
  }
}

}  // namespace
}  // namespace stoker::corpus
