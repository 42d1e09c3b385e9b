#include "data/corpus/dedup_accuracy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "base/error.h"

namespace stoker::corpus {
namespace {

bool by_pair(const SimilarPair& x, const SimilarPair& y) { return x.a != y.a ? x.a < y.a : x.b < y.b; }

}  // namespace

std::vector<SimilarPair> exact_similar_pairs(const std::vector<std::vector<uint64_t>>& sets,
                                             double threshold) {
  STOKER_CHECK(threshold > 0 && threshold <= 1, "threshold {}", threshold);
  std::unordered_map<uint64_t, uint32_t> frequency;
  for (const auto& set : sets)
    for (const uint64_t x : set) ++frequency[x];
  // Smaller sets first: a set is compared with those indexed before it, and needs |small| >= t |large|.
  std::vector<uint32_t> order(sets.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return sets[a].size() != sets[b].size() ? sets[a].size() < sets[b].size() : a < b;
  });
  std::unordered_map<uint64_t, std::vector<uint32_t>> index;
  std::vector<uint32_t> last_seen(sets.size(), UINT32_MAX);
  std::vector<SimilarPair> pairs;
  std::vector<uint64_t> rare_first;
  for (const uint32_t d : order) {
    const auto& set = sets[d];
    if (set.empty()) continue;
    rare_first = set;
    const auto needed = static_cast<size_t>(std::ceil(threshold * static_cast<double>(set.size()) - 1e-9));
    const size_t prefix = set.size() - std::max<size_t>(needed, 1) + 1;
    std::partial_sort(rare_first.begin(), rare_first.begin() + static_cast<std::ptrdiff_t>(prefix),
                      rare_first.end(), [&](uint64_t x, uint64_t y) {
                        const uint32_t fx = frequency[x], fy = frequency[y];
                        return fx != fy ? fx < fy : x < y;
                      });
    for (size_t i = 0; i < prefix; ++i) {
      auto& postings = index[rare_first[i]];
      for (const uint32_t other : postings) {
        if (last_seen[other] == d) continue;
        last_seen[other] = d;
        if (static_cast<double>(sets[other].size()) < threshold * static_cast<double>(set.size()) - 1e-9)
          continue;
        const double similarity = jaccard(set, sets[other]);
        if (similarity >= threshold)
          pairs.push_back({std::min(d, other), std::max(d, other), static_cast<float>(similarity)});
      }
      postings.push_back(d);
    }
  }
  std::sort(pairs.begin(), pairs.end(), by_pair);
  return pairs;
}

std::vector<SimilarPair> banded_pairs(const std::vector<Signature>& signatures, const MinHashParameters& p) {
  std::vector<std::pair<uint64_t, uint32_t>> keyed;
  std::vector<uint64_t> keys(p.bands);
  for (uint32_t d = 0; d < signatures.size(); ++d) {
    if (signatures[d].empty()) continue;
    band_keys(signatures[d], p.bands, p.rows, keys);
    for (const uint64_t key : keys) keyed.emplace_back(key, d);
  }
  std::sort(keyed.begin(), keyed.end());
  std::vector<SimilarPair> pairs;
  for (size_t i = 0, j; i < keyed.size(); i = j) {
    for (j = i + 1; j < keyed.size() && keyed[j].first == keyed[i].first;) ++j;
    for (size_t x = i; x < j; ++x)
      for (size_t y = x + 1; y < j; ++y) pairs.push_back({keyed[x].second, keyed[y].second, 0});
    if (pairs.size() > (size_t{1} << 22)) {  // one pair may share many bands
      std::sort(pairs.begin(), pairs.end(), by_pair);
      pairs.erase(std::unique(pairs.begin(), pairs.end(),
                              [](const auto& a, const auto& b) { return a.a == b.a && a.b == b.b; }),
                  pairs.end());
    }
  }
  std::sort(pairs.begin(), pairs.end(), by_pair);
  pairs.erase(std::unique(pairs.begin(), pairs.end(),
                          [](const auto& a, const auto& b) { return a.a == b.a && a.b == b.b; }),
              pairs.end());
  for (auto& pair : pairs)
    pair.similarity = static_cast<float>(estimated_similarity(signatures[pair.a], signatures[pair.b]));
  return pairs;
}

PairAccuracy measure_pairs(std::span<const SimilarPair> truth, std::span<const SimilarPair> found,
                           double threshold, double min_estimate, const MinHashParameters& p) {
  PairAccuracy out;
  out.threshold = threshold;
  size_t t = 0;
  double expected = 0;
  for (const auto& pair : truth)
    if (pair.similarity >= threshold) {
      ++out.true_pairs;
      expected += p.collision_probability(pair.similarity);
    }
  if (out.true_pairs) out.expected_recall = expected / static_cast<double>(out.true_pairs);
  for (const auto& pair : found) {
    if (pair.similarity < min_estimate) continue;
    ++out.found_pairs;
    while (t < truth.size() && by_pair(truth[t], pair)) ++t;
    if (t < truth.size() && truth[t].a == pair.a && truth[t].b == pair.b && truth[t].similarity >= threshold)
      ++out.right_pairs;
  }
  return out;
}

}  // namespace stoker::corpus
