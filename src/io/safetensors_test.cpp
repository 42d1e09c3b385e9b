#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "base/expect_error.h"
#include "io/atomic_write.h"
#include "io/memory_file_system.h"

namespace stoker::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string file_of(const std::string& json, size_t data_bytes) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return out + json + std::string(data_bytes, 'd');
}

std::string tensor(const char* name, const char* dtype, const char* shape, int begin, int end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin,
                     end);
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  MemoryFileSystem fs;
  std::vector<float> a(6);
  std::iota(a.begin(), a.end(), 0.5f);
  const std::vector<uint16_t> b = {1, 2, 3};
  {
    SafetensorsWriter w(
        fs, "m", {{"b", "BF16", {3}}, {"a", "F32", {2, 3}}, {"none", "F32", {0, 4}}, {"one", "F64", {}}},
        {{"format", "pt"}});
    EXPECT_EQ(w.header().size() % 64, 0u);
    w.write("b", b.data(), 6);
    w.write_part("a", 8, a.data() + 2, 16);
    w.write_part("a", 0, a.data(), 8);
    const double one = 7;
    w.write("one", &one, 8);
    w.write("none", nullptr, 0);
    w.finish();
    EXPECT_EQ(w.file_bytes(), fs.info("m").size);
  }
  SafetensorsWriter(fs, "empty", {}).finish();
  EXPECT_TRUE(SafetensorsFile(fs, "empty").tensors().empty());
  const SafetensorsFile f(fs, "m");
  EXPECT_EQ(f.metadata().at("format"), "pt");
  std::vector<std::string> order;
  for (const TensorEntry& t : f.tensors()) order.push_back(t.name);
  EXPECT_THAT(order, ElementsAre("one", "a", "none", "b"));  // wide elements first: all naturally aligned
  const TensorEntry& t = f.at("a");
  EXPECT_THAT(t.shape, ElementsAre(2, 3));
  EXPECT_EQ(std::memcmp(f.bytes(t).data(), a.data(), 24), 0);
  float part[2];
  f.read(t, 12, part, 8);
  EXPECT_EQ(part[0], a[3]);
  EXPECT_EQ(f.find("c"), nullptr);
  EXPECT_THAT(error_of([&] { f.at("c"); }).what(), HasSubstr("'m': has no tensor 'c'"));
}

TEST(Safetensors, SameDeclarationsSameBytes) {
  MemoryFileSystem fs;
  for (const char* name : {"x", "y"}) {
    std::vector<TensorDeclaration> d = {{"p", "F32", {2}}, {"q", "F32", {1}}};
    if (*name == 'y') std::swap(d[0], d[1]);
    SafetensorsWriter w(fs, name, d, {{"k", "v"}});
    const float data[2] = {1, 2};
    w.write("q", data, 4);
    w.write("p", data, 8);
    w.finish();
  }
  EXPECT_EQ(read_text(fs, "x"), read_text(fs, "y"));
}

TEST(Safetensors, AForgottenTensorIsOurBug) {
  MemoryFileSystem fs;
  SafetensorsWriter w(fs, "m", {{"p", "F32", {2}}});
  EXPECT_EQ(error_of([&] { w.finish(); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(error_of([&] { w.write("z", nullptr, 0); }).kind(), ErrorKind::kInternal);
}

TEST(Safetensors, DamageIsNamed) {
  struct Case {
    std::string bytes;
    const char* says;
  };
  std::string huge_header = file_of("{}", 0);
  huge_header[6] = 1;
  const std::string f32 = tensor("a", "F32", "[2]", 0, 8);
  const std::vector<Case> cases = {
      {"", "0 bytes: too short"},
      {std::string(7, 'x'), "too short"},
      {huge_header, "the header should have"},
      {file_of("{}", 0).substr(0, 9), "the header should have"},
      {file_of("[]", 0), "does not start with"},
      {file_of("{\"a\"", 0), "not valid JSON"},
      {file_of("{" + f32 + "," + f32 + "}", 8), "says 'a' twice"},
      {file_of("{\"a\":1}", 0), "tensor 'a': expected dtype, shape and data_offsets"},
      {file_of("{" + tensor("a", "F33", "[2]", 0, 8) + "}", 8), "type 'F33'"},
      {file_of("{" + tensor("a", "F32", "[-2]", 0, 8) + "}", 8), "whole number"},
      {file_of("{" + tensor("a", "F32", "[2.0]", 0, 8) + "}", 8), "whole number"},
      {file_of("{" + tensor("a", "F32", "[3]", 0, 8) + "}", 8),
       "has 8 bytes, but its type F32 and shape need 12"},
      {file_of("{" + tensor("a", "F32", "[4611686018427387904,4]", 0, 8) + "}", 8), "does not fit"},
      {file_of("{" + tensor("a", "F32", "[9223372036854775808]", 0, 8) + "}", 8), "out of range"},
      {file_of("{" + f32 + "}", 7), "truncated"},
      {file_of("{" + f32 + "}", 9), "the last tensor ends at byte"},
      {file_of("{" + f32 + "," + tensor("b", "F32", "[2]", 4, 12) + "}", 12), "tensor 'b': starts at"},
      {file_of("{" + f32 + "," + tensor("b", "F32", "[1]", 12, 16) + "}", 16), "there is a gap"},
      {file_of("{" + tensor("a", "F32", "[2]", 8, 0) + "}", 8), "lies at bytes 8 to 0"},
      {file_of("{" + tensor("a", "F4", "[3]", 0, 1) + "}", 1), "not whole bytes"},
      {file_of("{\"__metadata__\":{\"a\":1}}", 0), "__metadata__ 'a' is not a string"},
      {file_of("{\"__metadata__\":1}", 0), "not an object"},
  };
  for (const Case& c : cases) {
    const Error e = error_of([&] { parse_safetensors_header(c.bytes, c.bytes.size(), "f"); });
    EXPECT_EQ(e.kind(), ErrorKind::kData) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(c.says));
    EXPECT_THAT(e.what(), HasSubstr("'f'"));
  }
}

TEST(Safetensors, ReadsTheReferenceLibrarysFiles) {
  const std::string models = std::string(STOKER_SOURCE_DIR) + "/tests/golden/models/";
  const SafetensorsSet single(real_file_system(), models + "llama");
  EXPECT_EQ(single.tensors().size(), 1u + 2 * 9 + 2);
  const auto* norm = single.find("model.norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_EQ(norm->tensor->dtype, "F32");
  EXPECT_EQ(norm->bytes().size(), 128u);
  const SafetensorsSet sharded(real_file_system(), models + "qwen2");
  EXPECT_EQ(sharded.tensors().size(), 1u + 2 * 12 + 2);
  const SafetensorsSet one_file(real_file_system(), models + "qwen2/golden.safetensors");
  EXPECT_EQ(one_file.find("loss_f64")->tensor->dtype, "F64");
}

TEST(SafetensorsSet, ShardsByNameUpToASize) {
  MemoryFileSystem fs;
  std::vector<TensorDeclaration> all;
  for (int i = 0; i < 7; ++i) all.push_back({fmt::format("t{}", i), "U8", {i == 3 ? 50 : 10}});
  const ShardPlan plan = plan_shards(all, 30);
  ASSERT_THAT(plan.files, ElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors"));
  EXPECT_EQ(plan.tensors[0].size(), 3u);
  EXPECT_EQ(plan.tensors[1].size(), 1u);  // larger than the limit: alone
  fs.make_dirs("d");
  for (size_t i = 0; i < plan.files.size(); ++i) {
    SafetensorsWriter w(fs, join("d", plan.files[i]), plan.tensors[i]);
    for (const auto& t : plan.tensors[i]) {
      const std::string data(declared_bytes(t), t.name[1]);
      w.write(t.name, data.data(), data.size());
    }
    w.finish();
  }
  write_file_atomic(fs, "d/model.safetensors.index.json", plan.index);
  const SafetensorsSet set(fs, "d");
  ASSERT_EQ(set.tensors().size(), 7u);
  for (const auto& [name, at] : set.tensors()) EXPECT_EQ(static_cast<char>(at.bytes()[0]), name[1]);
  EXPECT_THAT(plan_shards(all, 1000).files, ElementsAre("model.safetensors"));
  EXPECT_TRUE(plan_shards(all, 1000).index.empty());
}

TEST(SafetensorsSet, ErrorsSayWhatToDo) {
  MemoryFileSystem fs;
  fs.make_dirs("d");
  EXPECT_THAT(error_of([&] { SafetensorsSet(fs, "d"); }).what(), HasSubstr("expected model.safetensors or"));
  write_file_atomic(fs, "d/pytorch_model.bin", "x");
  const Error pickle = error_of([&] { SafetensorsSet(fs, "d"); });
  EXPECT_EQ(pickle.kind(), ErrorKind::kUsage);
  EXPECT_THAT(pickle.what(), HasSubstr("can run code"));
  for (const char* file : {"\"../x.safetensors\"", "\"/etc/x.safetensors\"", "\"x.bin\"", "3"}) {
    write_file_atomic(fs, "d/model.safetensors.index.json",
                      fmt::format(R"({{"weight_map":{{"a":{}}}}})", file));
    EXPECT_THAT(error_of([&] { SafetensorsSet(fs, "d"); }).what(),
                HasSubstr("expected the name of a .safetensors file"));
  }
  write_file_atomic(fs, "d/model.safetensors.index.json", R"({"weight_map":{"a":"x.safetensors"}})");
  EXPECT_EQ(error_of([&] { SafetensorsSet(fs, "d"); }).kind(), ErrorKind::kUsage);  // no such file
  SafetensorsWriter(fs, "d/x.safetensors", {}).finish();
  EXPECT_THAT(error_of([&] { SafetensorsSet(fs, "d"); }).what(), HasSubstr("has no tensor 'a'"));
}

}  // namespace
}  // namespace stoker::io
