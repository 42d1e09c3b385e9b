#include "plan/catalog_tables.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace stoker::plan {
namespace {

std::string accelerators_with(const std::string& row) {
  return "name,family,aliases,bf16_TFLOPs,memory_GiB,memory_TBps,power_W,per_node,inside_GBps,inside_domain,"
         "between_GBps\nA,fam,first;one,100,40,1,300,8,100,8,25\n" +
         row;
}

template <typename Parse>
std::string error_of(Parse parse) {
  try {
    parse();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(CatalogTables, NamesAndAliasesLeadToTheSameEntry) {
  const auto t = parse_accelerators(accelerators_with("B-2 x,fam,,100,40,1,300,4,100,72,25\n"), "mine.csv");
  ASSERT_EQ(t.entries.size(), 2u);
  EXPECT_EQ(t.find("ONE"), &t.entries[0]);
  EXPECT_EQ(t.find("b2_X"), &t.entries[1]);
  EXPECT_EQ(t.find("c"), nullptr);
}

TEST(CatalogTables, AUsersAcceleratorsAreCheckedCellByCell) {
  const std::pair<const char*, const char*> wrong[] = {
      {"B,fam,,100,-40,1,300,8,100,8,25\n", "memory_GiB"},
      {"B,fam,,100,40,0,300,8,100,8,25\n", "memory_TBps"},
      {"B,fam,,1e300,40,1,300,8,100,8,25\n", "bf16_TFLOPs"},
      {"B,fam,,,40,1,300,8,100,8,25\n", "expected a peak"},
      {"B,fam,,100,40,1,300,8.5,100,8,25\n", "per_node"},
      {"B,fam,,100,40,1,300,8,100,1e18,25\n", "inside_domain"},
      {"B,,,100,40,1,300,8,100,8,25\n", "expected a family"},
      {",fam,,100,40,1,300,8,100,8,25\n", "expected a name"},
      {"one,fam,,100,40,1,300,8,100,8,25\n", "is taken by mine.csv line 2"},
      {"B,fam,,100 TFLOPs,40,1,300,8,100,8,25\n", "'100 TFLOPs'"}};
  for (const auto& [row, said] : wrong) {
    const std::string error =
        error_of([&, r = row] { parse_accelerators(accelerators_with(r), "mine.csv"); });
    EXPECT_NE(error.find(said), std::string::npos) << row << error;
    EXPECT_NE(error.find("mine.csv line 3"), std::string::npos) << error;
  }
}

TEST(CatalogTables, AUsersModelsAndSoftwareToo) {
  const std::string model = "name,layers,hidden,heads,kv_heads,head_dim,ffn,vocab,gated,max_positions\n";
  EXPECT_EQ(parse_models(model + "m,2,64,4,4,16,256,1000,1,512\n", "m.csv").entries.size(), 1u);
  for (const char* row : {"m,2,64,4,3,16,256,1000,1,512\n", "m,2.5,64,4,4,16,256,1000,1,512\n",
                          "m,1e15,64,4,4,16,256,1000,1,512\n", "m,-2,64,4,4,16,256,1000,1,512\n"})
    EXPECT_NE(error_of([&] { parse_models(model + row, "m.csv"); }).find("m.csv line 2"), std::string::npos)
        << row;

  const std::string software = "pattern,engine,release,recompute,zero,gradient_bytes\n";
  EXPECT_EQ(parse_software(software + "mine,mine,@(v\\d+),none,1,4\n", "s.csv").size(), 1u);
  for (const char* row : {"mine,mine,@(v\\d+,none,1,4\n", "mine,mine,,some,1,4\n", "mine,mine,,none,4,4\n",
                          "mine,mine,,none,1,-4\n", ",mine,,none,1,4\n"})
    EXPECT_NE(error_of([&] { parse_software(software + row, "s.csv"); }).find("s.csv line 2"),
              std::string::npos)
        << row;
}

}  // namespace
}  // namespace stoker::plan
