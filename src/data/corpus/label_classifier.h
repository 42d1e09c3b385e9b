// data/corpus/label_classifier.h
// A linear text classifier: hashed folded words and word pairs -> softmax over labels. Small, fast, trained on
// a user's own examples in seconds.
// Model      logit[l] = bias[l] + sum over features w[l][hash mod buckets] * count / sqrt(number of features)
// Training   stochastic gradient descent with a falling rate, order by a keyed permutation, single-threaded:
//            same examples, options and seed give the same bytes on the same machine type
// File       "STKLABEL" | u32 version 1 | u32 JSON bytes | JSON {labels, buckets, word_pairs, examples,
//            accuracy} | f32 bias[labels] | f32 weights[labels][buckets], little-endian | u64 XXH3-64 of all
//            before
// Cost       predict: linear in the text, at most the first max_words words
// Errors     Data: no examples, one label only, a broken or foreign file
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::corpus {

struct LabelledText {
  std::string text, label;
};

struct LabelTraining {
  int epochs = 5;
  float rate = 0.5f;
  int bucket_bits = 18;
  double held_out = 0.1;  // share of examples (by content hash) that only measure
  uint64_t seed = 1;
};

struct LabelScore {
  int label = -1;  // index into labels(); -1: no words
  float probability = 0;
};

class LabelClassifier {
 public:
  static LabelClassifier train(const std::vector<LabelledText>& examples, const LabelTraining& options = {});
  static LabelClassifier parse(std::string_view bytes, std::string_view file);
  std::string encode() const;
  LabelScore predict(std::string_view text) const;
  std::vector<float> probabilities(std::string_view text) const;
  const std::vector<std::string>& labels() const { return labels_; }
  double held_out_accuracy() const { return accuracy_; }
  uint64_t held_out_examples() const { return held_out_; }

 private:
  std::vector<float> logits(const std::vector<uint32_t>& features) const;
  std::vector<uint32_t> features(std::string_view text) const;
  std::vector<std::string> labels_;  // sorted
  int bucket_bits_ = 18;
  uint64_t examples_ = 0, held_out_ = 0;
  double accuracy_ = 0;
  std::vector<float> bias_, weights_;
};

}  // namespace stoker::corpus
