// data/corpus/dedup_accuracy.h
// How good is the banding? Pairs found by signatures against the truth: all pairs of documents whose exact
// Jaccard similarity reaches a threshold, found without signatures by prefix filtering (Bayardo, Ma & Srikant
// 2007: two sets with similarity >= t share an element among the rarest |x| - ceil(t|x|) + 1 of each).
// Memory   all shingle sets: 8 bytes per shingle. For measuring, not for production
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/corpus/minhash_signature.h"

namespace stoker::corpus {

struct SimilarPair {
  uint32_t a, b;  // a < b
  float similarity;
};

// All pairs with exact Jaccard >= threshold of sets (each sorted, without repeats), sorted by (a, b).
// Empty sets pair with nothing.
std::vector<SimilarPair> exact_similar_pairs(const std::vector<std::vector<uint64_t>>& sets,
                                             double threshold);

// All pairs that share a band, with their estimated similarity, sorted by (a, b). Empty signatures match
// nothing.
std::vector<SimilarPair> banded_pairs(const std::vector<Signature>& signatures, const MinHashParameters& p);

struct PairAccuracy {
  double threshold = 0;
  uint64_t true_pairs = 0, found_pairs = 0, right_pairs = 0;
  double expected_recall = 0;  // from the true pairs' similarities and the parameters
  double precision() const {
    return found_pairs ? static_cast<double>(right_pairs) / static_cast<double>(found_pairs) : 1;
  }
  double recall() const {
    return true_pairs ? static_cast<double>(right_pairs) / static_cast<double>(true_pairs) : 1;
  }
};

// truth: exact pairs down to at most `threshold`. found: kept when their estimate is at least min_estimate.
PairAccuracy measure_pairs(std::span<const SimilarPair> truth, std::span<const SimilarPair> found,
                           double threshold, double min_estimate, const MinHashParameters& p);

}  // namespace stoker::corpus
