// Ids against PyPI's tokenizers and tiktoken: tests/golden/tokenizer/make_golden.py wrote what they gave.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/trainer.h"

namespace stoker::tokenizer {
namespace {

const std::string kGolden = STOKER_SOURCE_DIR "/tests/golden/tokenizer/";

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

const nlohmann::json& cases() {
  static const auto json = nlohmann::json::parse(read_file(kGolden + "cases.json"));
  return json;
}

std::string ids_text(const std::vector<int32_t>& ids) {
  std::string out;
  for (int32_t id : ids) out += std::to_string(id) + " ";
  return out;
}

void expect_ids(const Tokenizer& t, const nlohmann::json& wanted, const char* mode) {
  const auto texts = cases()["texts"].get<std::vector<std::string>>();
  size_t compared = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    std::vector<int32_t> ids;
    if (mode == std::string("template")) ids = t.encode_with_template(texts[i]);
    else
      ids = t.encode(texts[i],
                     mode == std::string("recognise") ? SpecialTokens::kRecognise : SpecialTokens::kAsText);
    EXPECT_EQ(ids_text(ids), ids_text(wanted[i].get<std::vector<int32_t>>()))
        << mode << ", text " << i << ": " << nlohmann::json(texts[i]).dump();
    compared += ids.size();
  }
  EXPECT_GT(compared, 20u);
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, IdsAreThoseOfHuggingFace) {
  const auto t = Tokenizer::load(kGolden + GetParam() + ".json");
  const auto& ids = cases()["ids"][GetParam()];
  ASSERT_TRUE(ids.contains("recognise"));
  for (const char* mode : {"recognise", "as_text", "template"})
    if (ids.contains(mode)) expect_ids(t, ids[mode], mode);
}

TEST_P(Golden, SavedFileGivesTheSameTokenizer) {
  const auto t = Tokenizer::load(kGolden + GetParam() + ".json");
  const auto again = Tokenizer::from_json(t.to_json());
  EXPECT_EQ(again.content_hash(), t.content_hash());
  EXPECT_TRUE(again.definition() == t.definition());
}

TEST_P(Golden, DecodeGivesTheTextBack) {
  const auto t = Tokenizer::load(kGolden + GetParam() + ".json");
  if (t.definition().nfc || t.definition().add_prefix_space) return;
  for (const AddedToken& a : t.added_tokens())
    if (a.lstrip || a.rstrip) return;
  for (const std::string text : cases()["texts"]) {
    EXPECT_EQ(t.decode(t.encode(text)), text);
    std::string streamed;
    StreamDecoder stream(t, false);
    for (int32_t id : t.encode(text)) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Golden,
                         testing::Values("gpt2", "llama3", "qwen2", "qwen3.5", "cl100k", "o200k", "flags",
                                         "nfc", "prefix_space"),
                         [](const auto& name) {
                           std::string s = name.param;
                           std::replace(s.begin(), s.end(), '.', '_');
                           return s;
                         });

TEST(GoldenFiles, VocabAndMergesAreGpt2) {
  const auto pair = Tokenizer::load(kGolden + "gpt2_files");
  const auto json = Tokenizer::load(kGolden + "gpt2.json");
  for (const std::string text : cases()["texts"]) EXPECT_EQ(pair.encode(text), json.encode(text));
}

TEST(GoldenFiles, TiktokenRanks) {
  for (auto pattern : {SplitPattern::kCl100k, SplitPattern::kO200k}) {
    const std::string name(split_name(pattern));
    const auto t = Tokenizer::load(kGolden + name + ".tiktoken", pattern);
    expect_ids(t, cases()["ids"]["tiktoken_" + name]["as_text"], "as_text");
  }
  EXPECT_THROW(Tokenizer::load(kGolden + "cl100k.tiktoken"), Error);
}

class TrainedGolden : public testing::TestWithParam<SplitPattern> {};

TEST_P(TrainedGolden, MergesAreThoseOfHuggingFace) {
  const auto wanted = Tokenizer::load(kGolden + "trained_" + std::string(split_name(GetParam())) + ".json");
  BpeTrainer trainer({.vocab_size = 640, .split = GetParam(), .min_frequency = 2});
  trainer.add(read_file(kGolden + "training.txt"));
  const auto t = trainer.train();
  const auto& a = t.definition();
  const auto& b = wanted.definition();
  ASSERT_EQ(a.vocab.size(), b.vocab.size());
  for (size_t i = 0; i < a.vocab.size(); ++i) ASSERT_TRUE(a.vocab[i] == b.vocab[i]) << i;
  ASSERT_EQ(a.merges.size(), b.merges.size());
  for (size_t i = 0; i < a.merges.size(); ++i) ASSERT_TRUE(a.merges[i] == b.merges[i]) << i;
  EXPECT_EQ(t.content_hash(), wanted.content_hash());
}

INSTANTIATE_TEST_SUITE_P(Patterns, TrainedGolden, testing::ValuesIn(kSplitPatterns), [](const auto& name) {
  std::string s(split_name(name.param));
  std::replace(s.begin(), s.end(), '.', '_');
  return s;
});

}  // namespace
}  // namespace stoker::tokenizer
