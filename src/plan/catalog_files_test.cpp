#include "plan/catalog_files.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace stoker::plan {
namespace {

TEST(CatalogFiles, EveryFileOfTheTreeIsBuiltInByteForByte) {
  const std::filesystem::path root = std::filesystem::path(STOKER_SOURCE_DIR) / "catalog";
  size_t seen = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".csv" && extension != ".toml" && extension != ".json") continue;
    std::ifstream in(entry.path(), std::ios::binary);
    std::ostringstream bytes;
    bytes << in.rdbuf();
    EXPECT_EQ(catalog_file(std::filesystem::relative(entry.path(), root).string()), bytes.str())
        << entry.path();
    ++seen;
  }
  EXPECT_GT(seen, 0u);
  EXPECT_EQ(catalog_names().size(), seen);
}

TEST(CatalogFiles, UnknownNameListsWhatThereIs) {
  try {
    catalog_file("prices/none.csv");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find(catalog_names().front()), std::string::npos);
  }
}

TEST(CatalogFiles, DirectoryOfTheUserComesFirst) {
  const auto directory = std::filesystem::path(testing::TempDir()) / "stoker_catalog";
  const std::string name = catalog_names().front();
  std::filesystem::create_directories((directory / name).parent_path());
  std::ofstream(directory / name) << "mine";
  setenv("STOKER_CATALOG", directory.c_str(), 1);
  EXPECT_EQ(catalog_file(name), "mine");
  EXPECT_NE(catalog_file(catalog_names().back()), "mine");
  unsetenv("STOKER_CATALOG");
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace stoker::plan
