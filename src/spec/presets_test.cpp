#include "spec/presets.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "spec/parameter_table.h"

namespace stoker {
namespace {

// Parameters as the models' pages state them (tied weights counted once).
TEST(Presets, ParameterCountsAreThePublishedOnes) {
  const std::map<std::string, int64_t> published = {
      {"gpt2", 124439808},          {"gpt2-medium", 354823168},     {"gpt2-large", 774030080},
      {"gpt2-xl", 1557611200},      {"tinyllama-1.1b", 1100048384}, {"llama-2-7b", 6738415616},
      {"llama-2-13b", 13015864320}, {"llama-2-70b", 68976648192},   {"llama-3-8b", 8030261248},
      {"llama-3-70b", 70553706496}, {"llama-3.1-8b", 8030261248},   {"llama-3.1-405b", 405853388800},
      {"llama-3.2-1b", 1235814400}, {"mistral-7b", 7241732096},     {"qwen2.5-0.5b", 494032768},
      {"qwen2.5-1.5b", 1543714304}, {"qwen2.5-7b", 7615616512},     {"qwen3-0.6b", 596049920},
      {"qwen3-8b", 8190735360}};
  for (const auto& [name, count] : published) EXPECT_EQ(parameter_count(model_preset(name)), count) << name;
  for (const std::string& name : model_preset_names()) {
    EXPECT_NO_THROW(validate(model_preset(name))) << name;
    EXPECT_TRUE(published.contains(name) || name == "llama-124m") << name << " has no published count here";
  }
}

TEST(Presets, UnknownNameListsTheNearestFirst) {
  try {
    model_preset("lama-3-8b");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("expected one of llama-3-8b,"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace stoker
