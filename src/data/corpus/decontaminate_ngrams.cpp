#include "data/corpus/decontaminate_ngrams.h"

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "data/corpus/minhash_shingles.h"

namespace stoker::corpus {
namespace {

constexpr int kFewestWords = 5;

int count_words(std::string_view text) {
  int words = 0;
  for_each_folded_word(text, [&](uint64_t, size_t, size_t) { ++words; });
  return words;
}

}  // namespace

DecontaminationIndex::DecontaminationIndex(int n) : n_(n) {
  if (n < kFewestWords || n > 1000)
    fail(ErrorKind::kUsage, "decontamination: expected n-grams of {}..1000 words, found {}", kFewestWords, n);
}

uint32_t DecontaminationIndex::add(std::string name, std::string_view text) {
  const auto item = static_cast<uint32_t>(items_.size());
  items_.push_back({std::move(name), 0});
  const int words = count_words(text);
  if (words < kFewestWords) return item;
  const int n = std::min(n_, words);
  auto& index = n == n_ ? grams_ : short_grams_[n];
  const auto grams = shingle_set(text, ShingleUnit::kWord, n);
  for (const uint64_t gram : grams) index[gram].push_back(item);
  items_[item].grams = static_cast<uint32_t>(grams.size());
  return item;
}

Contamination DecontaminationIndex::check(std::string_view text) const {
  Contamination out;
  std::unordered_map<uint32_t, uint32_t> hits;
  std::unordered_set<uint64_t> seen;
  auto scan = [&](int n, const std::unordered_map<uint64_t, std::vector<uint32_t>>& index) {
    if (index.empty()) return;
    seen.clear();
    for_each_shingle_block(text, ShingleUnit::kWord, n, [&](std::span<const uint64_t> block) {
      for (const uint64_t gram : block) {
        const auto found = index.find(gram);
        if (found == index.end()) continue;
        ++out.matched;
        if (!seen.insert(gram).second) continue;
        for (const uint32_t item : found->second) ++hits[item];
      }
    });
  };
  scan(n_, grams_);
  for (const auto& [n, index] : short_grams_) scan(n, index);
  for (const auto& [item, count] : hits) {
    const float overlap = static_cast<float>(count) / static_cast<float>(items_[item].grams);
    if (overlap > out.overlap || (overlap == out.overlap && item < out.item))
      out.overlap = overlap, out.item = item;
  }
  return out;
}

}  // namespace stoker::corpus
