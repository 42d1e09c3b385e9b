// Greedy generation and the distributions that sampling draws from, against transformers' generate on models that Stoker trained and
// exported (tests/golden/make_sampling.py, which also checks that no choice is within rounding and no token on a filter's edge).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "eval/sampler.h"
#include "model/decoder.h"
#include "model/hf_weights.h"
#include "model/transformer.h"
#include "spec/hf_config.h"

namespace stoker::eval {
namespace {

struct Prompt {
  std::string text;
  std::vector<int32_t> given, made;
};

class Generate : public testing::TestWithParam<const char*> {
 protected:
  Generate()
      : config_(parse_hf_config(read("config.json"), GetParam())),
        store_(config_.model, Precision::kFp32, false),
        expected_(io::real_file_system(), directory() + "golden.safetensors") {
    load_hf_weights(io::SafetensorsSet(io::real_file_system(), directory() + "model.safetensors"), store_);
    store_.refresh(context_);
    std::istringstream lines(read("greedy.txt"));
    std::string text, given, made;
    while (std::getline(lines, text, '\t') && std::getline(lines, given, '\t') && std::getline(lines, made))
      prompts_.push_back({text, ids(given), ids(made)});
  }

  std::string directory() const {
    return std::string(STOKER_SOURCE_DIR) + "/tests/golden/sampling/" + GetParam() + "/";
  }
  std::string read(const std::string& name) const {
    return std::string(io::real_file_system().open_read(directory() + name)->text());
  }
  static std::vector<int32_t> ids(const std::string& list) {
    std::vector<int32_t> out;
    std::istringstream in(list);
    for (std::string id; std::getline(in, id, ',');) out.push_back(std::stoi(id));
    return out;
  }
  template <typename T>
  std::vector<T> golden(const std::string& name) const {
    const auto bytes = expected_.bytes(expected_.at(name));
    const T* p = reinterpret_cast<const T*>(bytes.data());
    return {p, p + bytes.size() / sizeof(T)};
  }
  // The logits after all of `text`, computed without a cache.
  std::vector<float> uncached(const std::vector<int32_t>& text) {
    const auto n = static_cast<int64_t>(text.size());
    std::vector<int32_t> positions(text.size()), targets(text.size(), -1);
    for (size_t i = 0; i < text.size(); ++i) positions[i] = static_cast<int32_t>(i);
    Transformer model(store_, {1, n, Recompute::kNone, false}, context_);
    std::vector<float> all(text.size() * static_cast<size_t>(config_.model.vocab));
    model.logits({1, n, text, targets, positions, {}}, view_of(all.data(), {n, config_.model.vocab}));
    return {all.end() - config_.model.vocab, all.end()};
  }
  int32_t best(std::span<const float> logits) { return sample(logits, {0, 0, 1, 1}, 0); }

  HfConfig config_;
  nn::ParameterStore store_;
  io::SafetensorsFile expected_;
  ops::Context context_;
  std::vector<Prompt> prompts_;
};
INSTANTIATE_TEST_SUITE_P(Exported, Generate, testing::Values("llama", "gpt2"),
                         [](const auto& i) { return std::string(i.param); });

TEST_P(Generate, GreedyIsThatOfTransformersWithAndWithoutTheCache) {
  ASSERT_GE(prompts_.size(), 4u);
  for (const Prompt& p : prompts_) {
    Decoder decoder(store_, config_.model.max_positions, context_);
    std::span<const float> logits;
    std::vector<int32_t> text = p.given;
    for (const int32_t t : text) logits = decoder.next(t);
    for (size_t i = 0; i < p.made.size(); ++i) {
      ASSERT_EQ(best(logits), p.made[i]) << p.text << ", token " << i;
      ASSERT_EQ(best(uncached(text)), p.made[i]) << p.text << ", token " << i << " without the cache";
      text.push_back(p.made[i]);
      if (decoder.length() < decoder.capacity()) logits = decoder.next(p.made[i]);
    }
  }
}

// transformers divides float32 logits by the temperature: each quotient is off by at most 2^-24 of itself, a probability by twice
// that of the largest, relatively; the same for the sum that divides it.
TEST_P(Generate, FilteredDistributionsAreThoseOfTransformers) {
  const auto settings = nlohmann::json::parse(read("settings.json"));
  ASSERT_GE(settings.size(), 6u);
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const auto logits = golden<float>("logits." + std::to_string(p));
    float largest = 0;
    for (const float x : logits) largest = std::max(largest, std::abs(x));
    for (size_t s = 0; s < settings.size(); ++s) {
      const auto& j = settings[s];
      const auto want = golden<double>("probabilities." + std::to_string(p) + "." + std::to_string(s));
      std::vector<double> got(want.size(), 0.0);
      for (const Candidate& c : candidates(logits, {j["temperature"], j["top_k"], j["top_p"], 1}))
        got[static_cast<size_t>(c.token)] = c.probability;
      const double relative =
          4 * 0x1p-24 * (static_cast<double>(largest) / j["temperature"].get<double>() + 1);
      for (size_t id = 0; id < want.size(); ++id)
        ASSERT_NEAR(got[id], want[id], relative * want[id])
            << prompts_[p].text << ", " << j.dump() << ", token " << id;
    }
  }
}

// The golden logits are transformers' own, so this holds the two programs' models against each other on trained weights.
TEST_P(Generate, LogitsOfTheExportedModel) {
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const auto want = golden<float>("logits." + std::to_string(p));
    const auto got = uncached(prompts_[p].given);
    float largest = 0;
    for (const float x : want) largest = std::max(largest, std::abs(x));
    for (size_t id = 0; id < want.size(); ++id)
      ASSERT_NEAR(got[id], want[id], 1e-5f * largest) << prompts_[p].text;
  }
}

}  // namespace
}  // namespace stoker::eval
