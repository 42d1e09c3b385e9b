// data/corpus/minhash_signature.h
// MinHash signatures and locality-sensitive bands (Broder 1997; Indyk & Motwani 1998) with the published
// parameter sets. Two texts whose shingle sets have Jaccard similarity s agree in each of the bands*rows
// entries with probability s, and in at least one whole band with probability 1 - (1 - s^rows)^bands.
// Entries       64-bit minima folded to 32 bits; an empty text (no shingle) has no signature
// Determinism   a pure function of text and parameters: same bits on every machine and instruction set
// Errors        Usage: unknown preset, bands, rows or n below 1
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus/minhash_shingles.h"

namespace stoker::corpus {

struct MinHashParameters {
  std::string name = "custom";
  ShingleUnit unit = ShingleUnit::kWord;
  int n = 5;
  int bands = 14;
  int rows = 8;
  uint64_t seed = 1;
  int entries() const { return bands * rows; }
  double collision_probability(double similarity) const;
};

// fineweb (14x8, 5 words), olmo3 (26x11, 5 words), duplodocus (20x5, 5 words), nemo (20x13, 24 characters),
// text-dedup (240 entries cut by optimal_bands for threshold 0.7), refinedweb (450x20, 5 words), slimpajama
// (9x13, 13 words). OLMo 3 and duplodocus count tokens where these count words.
MinHashParameters minhash_preset(std::string_view name);
std::vector<std::string> minhash_preset_names();

// bands and rows with bands*rows <= entries that make (area of false positives + area of false negatives)
// around the threshold least; the rule by which text-dedup derives its own.
MinHashParameters optimal_bands(int entries, double threshold);

using Signature = std::vector<uint32_t>;

class SignatureMaker {
 public:
  explicit SignatureMaker(const MinHashParameters& parameters);
  const MinHashParameters& parameters() const { return parameters_; }
  // nullopt for a text without a single word. Not thread-safe: one maker per thread.
  std::optional<Signature> sign(std::string_view text);

 private:
  MinHashParameters parameters_;
  std::vector<uint64_t> a_, b_, c_, minima_;
};

// The share of equal entries: an unbiased estimate of the Jaccard similarity, variance s(1-s)/entries.
double estimated_similarity(std::span<const uint32_t> a, std::span<const uint32_t> b);

// One 64-bit key per band; equal keys mean equal rows (up to a 2^-64 chance).
void band_keys(std::span<const uint32_t> signature, int bands, int rows, std::span<uint64_t> keys);

}  // namespace stoker::corpus
