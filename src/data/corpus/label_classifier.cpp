#include "data/corpus/label_classifier.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/hash.h"
#include "base/random.h"
#include "data/corpus/minhash_shingles.h"

namespace stoker::corpus {
namespace {

constexpr std::string_view kMagic = "STKLABEL";
constexpr size_t kMaxWords = 20000;

void softmax(std::vector<float>& logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  float sum = 0;
  for (float& x : logits) sum += x = std::exp(x - top);
  for (float& x : logits) x /= sum;
}

}  // namespace

std::vector<uint32_t> LabelClassifier::features(std::string_view text) const {
  std::vector<uint32_t> out;
  uint64_t previous = 0x9E3779B97F4A7C15ull;
  const int shift = 64 - bucket_bits_;
  size_t words = 0;
  for_each_folded_word(text, [&](uint64_t hash, size_t, size_t) {
    if (words++ >= kMaxWords) return;
    out.push_back(static_cast<uint32_t>(hash * 0x9E3779B97F4A7C15ull >> shift));
    out.push_back(static_cast<uint32_t>((hash + previous * 31) * 0xD6E8FEB86659FD93ull >> shift));
    previous = hash;
  });
  return out;
}

std::vector<float> LabelClassifier::logits(const std::vector<uint32_t>& features) const {
  std::vector<float> out = bias_;
  const float scale = features.empty() ? 0 : 1 / std::sqrt(static_cast<float>(features.size()));
  for (size_t l = 0; l < labels_.size(); ++l) {
    const float* row = weights_.data() + (l << bucket_bits_);
    float sum = 0;
    for (const uint32_t f : features) sum += row[f];
    out[l] += sum * scale;
  }
  return out;
}

LabelClassifier LabelClassifier::train(const std::vector<LabelledText>& examples,
                                       const LabelTraining& options) {
  LabelClassifier model;
  for (const auto& e : examples) model.labels_.push_back(e.label);
  std::sort(model.labels_.begin(), model.labels_.end());
  model.labels_.erase(std::unique(model.labels_.begin(), model.labels_.end()), model.labels_.end());
  if (model.labels_.size() < 2)
    fail(ErrorKind::kData,
         "training a classifier needs examples of at least two labels: found {} examples of {}",
         examples.size(), model.labels_.size());
  if (options.bucket_bits < 8 || options.bucket_bits > 24 || options.epochs < 1 || options.epochs > 1000)
    fail(ErrorKind::kUsage, "label training: expected 8..24 bucket bits and 1..1000 epochs; found {} and {}",
         options.bucket_bits, options.epochs);
  model.bucket_bits_ = options.bucket_bits;
  const size_t labels = model.labels_.size();
  model.bias_.assign(labels, 0);
  model.weights_.assign(labels << model.bucket_bits_, 0);

  struct Example {
    std::vector<uint32_t> features;
    size_t label;
  };
  std::vector<Example> learn, measure;
  const auto limit = static_cast<uint64_t>(options.held_out * 4294967296.0);
  for (const auto& e : examples) {
    Example example{
        model.features(e.text),
        static_cast<size_t>(std::lower_bound(model.labels_.begin(), model.labels_.end(), e.label) -
                            model.labels_.begin())};
    // By content, so that copies of a text are never on both sides.
    const bool hold = (hash64(e.text, options.seed) >> 32) < limit;
    (hold ? measure : learn).push_back(std::move(example));
  }
  if (learn.empty())
    fail(ErrorKind::kData, "label training: all {} examples are held out; lower held_out", examples.size());
  model.examples_ = learn.size();
  const double steps = static_cast<double>(learn.size()) * options.epochs;
  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    const KeyedPermutation order(hash64(&epoch, sizeof epoch, options.seed), learn.size());
    for (uint64_t i = 0; i < learn.size(); ++i) {
      const auto& example = learn[order.permute(i)];
      const double done =
          (static_cast<double>(epoch) * static_cast<double>(learn.size()) + static_cast<double>(i)) / steps;
      const auto rate = static_cast<float>(options.rate * (1 - done));
      auto p = model.logits(example.features);
      softmax(p);
      const float scale =
          example.features.empty() ? 0 : 1 / std::sqrt(static_cast<float>(example.features.size()));
      for (size_t l = 0; l < labels; ++l) {
        const float step = rate * ((l == example.label ? 1.0f : 0.0f) - p[l]);
        model.bias_[l] += step * 0.1f;
        float* row = model.weights_.data() + (l << model.bucket_bits_);
        for (const uint32_t f : example.features) row[f] += step * scale;
      }
    }
  }
  uint64_t right = 0;
  for (const auto& example : measure) {
    const auto p = model.logits(example.features);
    right += static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin()) == example.label;
  }
  model.held_out_ = measure.size();
  model.accuracy_ = measure.empty() ? 0 : static_cast<double>(right) / static_cast<double>(measure.size());
  return model;
}

std::vector<float> LabelClassifier::probabilities(std::string_view text) const {
  auto p = logits(features(text));
  softmax(p);
  return p;
}

LabelScore LabelClassifier::predict(std::string_view text) const {
  const auto f = features(text);
  if (f.empty()) return {};
  auto p = logits(f);
  softmax(p);
  const auto best = std::max_element(p.begin(), p.end());
  return {static_cast<int>(best - p.begin()), *best};
}

std::string LabelClassifier::encode() const {
  const nlohmann::json header = {{"labels", labels_},
                                 {"bucket_bits", bucket_bits_},
                                 {"examples", examples_},
                                 {"held_out", held_out_},
                                 {"accuracy", accuracy_}};
  const std::string json = header.dump();
  std::string out(kMagic);
  auto put = [&](const void* data, size_t bytes) { out.append(static_cast<const char*>(data), bytes); };
  const uint32_t version = 1, json_bytes = static_cast<uint32_t>(json.size());
  put(&version, 4);
  put(&json_bytes, 4);
  out += json;
  put(bias_.data(), bias_.size() * sizeof(float));
  put(weights_.data(), weights_.size() * sizeof(float));
  const uint64_t sum = hash64(out);
  put(&sum, 8);
  return out;
}

LabelClassifier LabelClassifier::parse(std::string_view bytes, std::string_view file) {
  auto broken = [&](std::string_view what) {
    fail(ErrorKind::kData, "{}: {}; expected a classifier written by 'stoker data label train'", file, what);
  };
  if (bytes.size() < 24 || !bytes.starts_with(kMagic)) broken("no STKLABEL header");
  uint64_t sum;
  std::memcpy(&sum, bytes.data() + bytes.size() - 8, 8);
  if (sum != hash64(bytes.substr(0, bytes.size() - 8)))
    broken("its checksum does not match, the file is damaged");
  uint32_t version, json_bytes;
  std::memcpy(&version, bytes.data() + 8, 4);
  std::memcpy(&json_bytes, bytes.data() + 12, 4);
  if (version != 1) broken(fmt::format("version {}, this program reads 1", version));
  if (json_bytes > bytes.size() - 24) broken("its header is longer than the file");
  const auto json = nlohmann::json::parse(bytes.substr(16, json_bytes), nullptr, false);
  LabelClassifier out;
  if (!json.is_object() || !json.contains("labels") || !json["labels"].is_array() ||
      !json.value("bucket_bits", nlohmann::json()).is_number_integer())
    broken("its header lacks labels or bucket_bits");
  for (const auto& label : json["labels"]) {
    if (!label.is_string()) broken("a label is no string");
    out.labels_.push_back(label.get<std::string>());
  }
  out.bucket_bits_ = json["bucket_bits"].get<int>();
  if (out.labels_.size() < 2 || out.labels_.size() > 10000 || out.bucket_bits_ < 8 || out.bucket_bits_ > 24)
    broken("its sizes are out of range");
  const auto number = [&](const char* key) {
    return json.contains(key) && json[key].is_number() ? json[key].get<double>() : 0.0;
  };
  out.examples_ = static_cast<uint64_t>(std::max(0.0, number("examples")));
  out.held_out_ = static_cast<uint64_t>(std::max(0.0, number("held_out")));
  out.accuracy_ = number("accuracy");
  const uint64_t weights =
      checked_mul<uint64_t>(out.labels_.size(), uint64_t{1} << out.bucket_bits_, "classifier weights");
  const uint64_t floats = checked_add<uint64_t>(weights, out.labels_.size(), "classifier size");
  if (bytes.size() - 24 - json_bytes != checked_mul<uint64_t>(floats, 4, "classifier bytes"))
    broken("its length does not fit its header");
  const char* at = bytes.data() + 16 + json_bytes;
  out.bias_.resize(out.labels_.size());
  std::memcpy(out.bias_.data(), at, out.bias_.size() * 4);
  out.weights_.resize(weights);
  std::memcpy(out.weights_.data(), at + out.bias_.size() * 4, weights * 4);
  return out;
}

}  // namespace stoker::corpus
