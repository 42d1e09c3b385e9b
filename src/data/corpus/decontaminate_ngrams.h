// data/corpus/decontaminate_ngrams.h
// Finds evaluation material in training text: n-grams of folded words (minhash_shingles.h) that also occur in
// an evaluation item. Item      one question, passage or answer; items with fewer than n words are matched
// whole (and never below 5 words) Overlap   of a document with an item: the share of the item's distinct
// n-grams found in the document Determinism  a pure function of items and text
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace stoker::corpus {

struct Contamination {
  uint32_t matched = 0;  // n-grams of the document that occur in some item, with repeats
  uint32_t item = 0;     // the item with the greatest overlap (smallest index among equals)
  float overlap = 0;     // with it; 0: clean
};

class DecontaminationIndex {
 public:
  explicit DecontaminationIndex(int n = 13);
  uint32_t add(std::string name, std::string_view text);  // returns the item's number
  Contamination check(std::string_view text) const;
  const std::string& item_name(uint32_t item) const { return items_[item].name; }
  size_t items() const { return items_.size(); }
  int n() const { return n_; }

 private:
  struct Item {
    std::string name;
    uint32_t grams = 0;
  };
  int n_;
  std::vector<Item> items_;
  std::unordered_map<uint64_t, std::vector<uint32_t>> grams_;  // of full length
  std::unordered_map<int, std::unordered_map<uint64_t, std::vector<uint32_t>>> short_grams_;  // by length
};

}  // namespace stoker::corpus
